"""The load test, `scripts/loadtest`: its command line, and the report of its result. The load is of `balancer.load`."""
