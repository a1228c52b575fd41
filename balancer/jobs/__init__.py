"""Durable jobs: a job that was accepted is synthesized, whichever process or host crashes meanwhile.

job             one job, its states, and the transitions between them
store           the JobStore protocol
sqlite_store    JobStore on this host: one SQLite file and a folder of results
redis_store     JobStore for several hosts: a Redis stream with a consumer group, and Lua scripts in `lua/`
service         accepts jobs, reports their status and cancels them; the API's routes call it
report          the public description of a job, for status responses and webhooks
executor        runs queued jobs in idle slots, and retries failed ones
webhooks        delivers signed notifications of ended jobs, and retries until they are accepted
public_network  HTTP connections to public addresses only
"""
