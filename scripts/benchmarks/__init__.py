"""Parts of bench_balancer.py and bench_cache.py."""
