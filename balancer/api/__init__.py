"""The HTTP API, one module per group of routes: each reads the request, calls a service and builds the response."""
