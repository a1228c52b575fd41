"""The audio cache.

store                the AudioStore protocol, and the checksums of entries
file_store           AudioStore on this host: files, and an SQLite index
redis_store          AudioStore for several hosts: Redis, and Lua scripts in `lua/`
best_effort          the cache as the speech service uses it: a store that fails is a cache miss
weights_fingerprint  the fingerprint of the weights, a part of the keys
"""
