from __future__ import annotations

import pytest

from balancer.scheduling.host_weight import MAX_PERCENT, MIN_PERCENT, host_weight


@pytest.mark.parametrize(
    ("requests", "utterances", "slots", "percent"),
    [
        (0, 0, 4, 100),  # idle
        (3, 3, 4, 100),  # each request has a slot
        (1, 4, 4, 40),  # a long text has them all
        (0, 3, 4, 25),  # jobs
        (3, 0, 4, 400),  # answers from the cache
        (1, 3, 2, 25),  # half of the workers are missing
        (0, 0, 0, MIN_PERCENT),
        (0, 100, 4, MIN_PERCENT),
        (100, 0, 4, MAX_PERCENT),
    ],
)
def test_the_weight(requests: int, utterances: int, slots: int, percent: int) -> None:
    assert host_weight(requests=requests, utterances=utterances, slots=slots, all_slots=4) == percent


def test_the_quotient_that_the_load_balancer_forms_is_by_the_utterances() -> None:
    long, short = (host_weight(requests=requests, utterances=4, slots=4, all_slots=4) for requests in (1, 4))
    assert (1 + 1) / long == (4 + 1) / short
