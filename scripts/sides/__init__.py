"""The two sides that bench_workers.py compares: how they are started and ended, loaded, and what memory they take."""
