"""The worker processes as the balancer sees them, and the HTTP client of a worker."""
