"""The job store of several hosts: Redis, with sorted sets of jobs by turn and by lease, and Lua scripts in `lua/`.

store        RedisJobStore: adds jobs, looks them up, cancels and deletes them
records      the jobs in Redis, and the scripts and errors of all parts of the store
keys         the keys of Redis
claims       claims queued jobs, and ends their claims
leases       renews the claims of this host
places       the places of queued jobs
segments     the finished segments of jobs that have not ended
outbox       the webhooks to be delivered
retention    deletes old jobs, and those whose audio takes up too much
results      the audio of finished jobs, sent and fetched in pieces
spool        this host's copies of audio that is in Redis
takeover     takes over the jobs of an earlier version
"""
