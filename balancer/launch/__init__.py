"""The start of a server: preflight checks, the plan, the download of weights, supervisord."""
