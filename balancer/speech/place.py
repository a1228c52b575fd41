"""The terms on which a piece of work waits that several requests share: the best of theirs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from balancer.scheduling.queued_utterance import Terms


class Place:
    """Terms that may become better while the work waits. Whatever the work waits in follows them."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        """Of the request that the work is done for, or of one of higher priority that has joined it.

        The playout deadline is the earliest of all.
        """
        self._followers: list[Callable[[Terms], None]] = []

    def improve(self, terms: Terms) -> None:
        """Another request waits for the work, on these terms: its place counts if it is better."""
        heard = [one for one in (self.terms.playout_deadline, terms.playout_deadline) if one is not None]
        best = terms if terms.priority.precedes(self.terms.priority) else self.terms
        self.terms = replace(best, playout_deadline=min(heard, default=None))
        for follower in list(self._followers):
            follower(terms)

    def followed_by(self, follower: Callable[[Terms], None]) -> AbstractContextManager[None]:
        """Within the block, `follower` is called with the terms of each request that joins."""
        return _Following(self._followers, follower)


class _Following:
    """The block of `followed_by`. Every utterance is synthesized in one: a generator would take longer."""

    def __init__(self, followers: list[Callable[[Terms], None]], follower: Callable[[Terms], None]) -> None:
        self._followers = followers
        self._follower = follower

    def __enter__(self) -> None:
        self._followers.append(self._follower)

    def __exit__(self, *_: object) -> None:
        self._followers.remove(self._follower)
