"""The fault tests. `scripts/chaos`: clients send requests while faults are injected into the server under them.

texts        the utterances of the clients, each with the digest of its audio
clients      the clients, and what they received
faults       kills and stops workers, fills the disk
disk         a small disk for the run directory
invariants   what must hold when all clients and faults have ended
streams      `scripts/chaos --streams`: listeners to streams, while workers are killed
long_job     `scripts/long_job`: a chapter as one job, while everything is killed on the way
"""
