"""Durable jobs: a job that was accepted is synthesized, whichever process or host crashes meanwhile.

job               one job, its states, and the transitions between them
store             the JobStore protocol, and the protocols of its parts
limits            the limits of a store, and the room that its jobs take up
sqlite            JobStore on this host: one SQLite file and folders of audio
redis             JobStore for several hosts
service           accepts jobs, reports their status and cancels them; the API's routes call it
report            the public description of a job, for status responses and webhooks
job_request       the speech request of a job
job_stream        the audio of a job as a stream, for those who listen while it is made
kept_segments     one running job's segments, as the speech service keeps them in the store
executor          runs queued jobs in idle slots, and retries failed ones
feed              the changes of jobs that event streams wait for
outage_log        the log of a store that cannot be used
webhooks          delivers notifications of ended jobs beside each other, and retries until they are accepted
webhook_client    signs and sends one notification
public_network    HTTP connections to public addresses only
public_addresses  the table of addresses that are not public
"""
