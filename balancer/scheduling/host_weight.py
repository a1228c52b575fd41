"""The weight of a host behind a load balancer that counts requests. Pure."""

from __future__ import annotations

from math import ceil

MIN_PERCENT, MAX_PERCENT = 5, 1000
"""Bounds of the weight: HAProxy takes a weight below 1 for none, and has none above 256."""


def host_weight(*, requests: int, utterances: int, slots: int, all_slots: int) -> int:
    """The weight in percent of that of an idle host.

    The load balancer counts `requests` under way at each host, at every request, and sends the next one to the host
    with the fewest for its weight (HAProxy's `leastconn`: `requests + 1` by weight). But requests differ: a long text
    takes all slots, a job that no request waits for takes one, and what comes from the cache none. With this weight
    that quotient is `utterances + 1`, those in slots and in the queue, for each slot that is left of `all_slots`, as of
    the moment when the load balancer asked; from then on each request counts as the others of its host did on average.
    """
    percent = ceil(100 * (requests + 1) / (utterances + 1) * slots / max(1, all_slots))
    return min(MAX_PERCENT, max(MIN_PERCENT, percent))
