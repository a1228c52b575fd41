"""A place that requests share is the best of theirs."""

from __future__ import annotations

from balancer.scheduling.priority import Priority
from balancer.scheduling.queued_utterance import Terms
from balancer.speech.place import Place


def test_the_higher_priority_and_the_earliest_listener_count() -> None:
    place = Place(Terms("job", Priority.BATCH))
    place.improve(Terms("listener", Priority.BATCH, playout_deadline=5.0))
    assert place.terms == Terms("job", Priority.BATCH, playout_deadline=5.0)
    place.improve(Terms("person"))
    place.improve(Terms("other", playout_deadline=9.0))
    assert place.terms == Terms("person", playout_deadline=5.0)


def test_followers_hear_of_every_request() -> None:
    place, heard = Place(Terms()), list[Terms]()
    with place.followed_by(heard.append):
        place.improve(Terms("one"))
    place.improve(Terms("two"))
    assert heard == [Terms("one")]
