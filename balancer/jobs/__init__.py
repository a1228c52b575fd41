"""Durable jobs: text that was accepted is spoken, whatever dies in between.

job          one job, its states, and what moves it from one to the next
store        the protocol of a store
sqlite_store embedded: one SQLite file and a folder of results on this host
redis_store  Redis streams with a consumer group: any host with an idle worker takes the next job
job_service         accepts, tells the state, cancels: what the routes call
executor       speaks queued jobs in idle slots, and tries again
webhooks     tells the client's own server, signed, again until it has heard
public_net   connections to public addresses only
"""
