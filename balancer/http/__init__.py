"""The HTTP/1.1 server around the API: uvicorn's server and protocol, with limits on size and time."""
