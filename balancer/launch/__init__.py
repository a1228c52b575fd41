"""The start of a server: preflight checks, layout and weights, the download of weights, supervisord."""
