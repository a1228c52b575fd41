"""The comparison of pinned workers with one model behind one lock, `scripts/bench_workers`."""
