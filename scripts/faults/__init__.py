"""Parts of chaos.py: what is done to a server under load, what its clients saw, and what is left afterwards."""
