"""Several hosts behind deploy/haproxy.cfg, while hosts and Redis fail: `scripts/try_hosts`.

host         one host, at a loopback address of its own: a balancer and stub workers
proxy        HAProxy with the shipped configuration
clients      speech and jobs, asked for through the proxy and checked
"""
