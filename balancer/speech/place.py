"""The terms on which a piece of work waits that several requests share: the best of theirs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from balancer.scheduling.queued_utterance import Terms


class Place:
    """Terms that may become better while the work waits. Whatever the work waits in follows them."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        """Of the request that the work is done for, or of one of higher priority that has joined it."""
        self._followers: list[Callable[[Terms], None]] = []

    def improve(self, terms: Terms) -> None:
        """Another request waits for the work, on these terms: its place counts if it is better."""
        if terms.priority.precedes(self.terms.priority):
            self.terms = terms
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
