"""The worker processes as the balancer sees them, and the client that talks to one."""
