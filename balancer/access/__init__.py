"""Access control: API keys, callers, host names, proxies and signed links, and the quotas and limits of each caller."""
