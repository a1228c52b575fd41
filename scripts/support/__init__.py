"""The sides that bench_workers.py and bench_engine.py compare: how they are started, loaded, and what they take."""
