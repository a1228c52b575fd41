"""`scripts/try_clients`: third-party clients, as their authors publish them, hear streams of a server.

programs      one program for each client, run by an interpreter that has the client's package
installation  installs a client in a folder of its own
"""
