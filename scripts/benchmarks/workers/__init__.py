"""Parts of bench_workers: pinned workers against one model behind one lock."""
