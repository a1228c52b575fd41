"""Dispatch of queued utterances to workers: slots, attempts, retries."""
