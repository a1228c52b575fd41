"""Load on a running server, as its clients make it, for the load test and for `chorus capacity`.

texts        the texts of the requests
arrivals     the times at which the requests of an open loop are due
client       asks the server for speech and checks the audio
driver       sends the requests, in a closed or an open loop, and records them
summary      the summary of the records
"""
