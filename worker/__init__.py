"""A worker: one process, one model, one thread that drives it, on its own cores."""
