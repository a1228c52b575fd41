"""English: everything that is written otherwise than it is said becomes words."""
