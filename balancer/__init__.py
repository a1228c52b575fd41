"""The balancer: one HTTP endpoint in front of many workers. Never imports torch or an engine."""
