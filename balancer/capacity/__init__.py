"""How much a host carries: `chorus capacity` measures it, and simulates other hosts and counts of hosts.

target          what the answers are to be like
step            what was measured at one rate of requests
search          the rates to try
observer        the server's own figures while it is measured
sweep           measures a running server
study           all that was measured, in a file
service_model   the times of a host, as measured
simulated_host  a host with the real scheduler and these times
routing         a load balancer in front of several hosts
simulation      requests to simulated hosts
plan            the hosts that a load takes, by simulation
costs           requests, audio and dollars
report, charts  all of it as one HTML file
"""
