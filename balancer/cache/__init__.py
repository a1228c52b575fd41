"""Audio that is kept, and audio that is shared while it is made.

sounds       what makes one sound another: the keys
policy       what a request may read and write, by its Cache-Control
store        the protocol of a store, and the checksum of its entries
file_store   files and an SQLite index on this host
redis_store  one Redis for several hosts
audio_cache  what the speech service asks; a broken store costs it nothing but the hits
coalescing   identical requests under way share one synthesis
"""
