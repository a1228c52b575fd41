from __future__ import annotations

from balancer.requests.log_fields import RequestLogFields


def test_only_fields_that_are_set_are_logged() -> None:
    assert RequestLogFields().as_dict() == {}
    fields = RequestLogFields(characters=5, worker=0, queue_seconds=0.0, cache="miss")
    assert fields.as_dict() == {"characters": 5, "worker": 0, "queue_seconds": 0.0, "cache": "miss"}
