"""The comparison of Chorus with HAProxy in front of the same workers, `scripts/bench_scheduling`.

servers         starts Chorus and HAProxy
offered_load    the texts of a run, and when they are due
client          the client of HAProxy, which follows the worker contract
measure         one run: a load sent through one balancer
result          capacity and latencies of all runs
targets         what Chorus must reach
report          the report as Markdown and JSON
"""
