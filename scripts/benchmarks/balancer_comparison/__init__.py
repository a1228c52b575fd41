"""Parts of bench_scheduling.py: the two fronts of the same workers, what is sent through them, and what came of it."""
