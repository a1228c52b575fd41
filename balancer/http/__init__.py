"""The HTTP/1.1 server around the API: uvicorn's protocol, with limits on size and time."""
