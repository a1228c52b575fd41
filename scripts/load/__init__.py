"""Parts of the load test: what is sent, when it is sent, what came back, and what it adds up to."""
