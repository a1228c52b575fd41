"""The queue of the utterances of one priority. Pure; the scheduler has one queue per priority.

Callers take turns, in rounds (fair queueing): every caller that waits when a round begins gets one turn in it, and a
caller that comes later waits for the next round. Within a round, and among the utterances of one caller, the lowest
rank goes first:

    rank = arrival + sjf_window * expected duration

So a short utterance overtakes longer ones (shortest job first), but no utterance is overtaken by one that arrived more
than `sjf_window` times its own expected duration later; with 0, the order is that of arrival.

Two exceptions give a caller's turn to another utterance than that of the lowest rank, but never twice in a row, so the
bound at most doubles:

- A listener, who plays the audio of a stream while it is made, is about to have nothing to play: the utterance that is
  to be heard soonest goes before its siblings (the other utterances of its caller). So the first of a stream, of which
  nothing is heard yet, goes before those of running streams, and these before whole answers. The callers of such
  utterances also have the first turns within the round. An utterance far ahead of its listener is in no hurry, and its
  rank is not lower than the latest time at which it should start.
- An utterance that would miss its deadline behind a sibling goes before it, unless the sibling must start as early.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from math import inf

from balancer.scheduling.queued_utterance import AttemptId, QueuedUtterance, Terms

PLAYOUT_SLACK_DURATIONS = 2.0
"""Expected durations before its playout deadline at which an utterance should start: slots are not free at once."""


@dataclass(frozen=True, order=True)
class _Entry:
    rank: float
    sequence: int
    """Number of the arrival: decides between equal ranks."""
    utterance: QueuedUtterance = field(compare=False)
    arrival: float = field(compare=False)
    duration: float = field(compare=False)

    @property
    def latest_start(self) -> float | None:
        """The latest time to start at and still meet the deadline; None without a deadline."""
        deadline = self.utterance.terms.deadline
        return None if deadline is None else deadline - self.duration

    @property
    def playout_deadline(self) -> float:
        """When a listener has nothing to play without it; infinite if nobody listens."""
        deadline = self.utterance.terms.playout_deadline
        return inf if deadline is None else deadline


@dataclass
class _Caller:
    round: int
    """The round of its next turn."""
    entries: list[_Entry] = field(default_factory=list)
    """By rank."""
    by_playout_deadline: list[_Entry] = field(default_factory=list)
    """The entries that somebody listens to."""
    preempted: bool = False
    """Whether its last turn went to a listener or a deadline instead of the lowest rank."""

    def add(self, entry: _Entry) -> None:
        insort(self.entries, entry)
        if entry.playout_deadline < inf:
            insort(self.by_playout_deadline, entry, key=lambda entry: entry.playout_deadline)

    def remove(self, entry: _Entry) -> None:
        del self.entries[bisect_left(self.entries, entry)]
        if entry.playout_deadline < inf:
            self.by_playout_deadline.remove(entry)

    def most_urgent(self, now: float) -> _Entry | None:
        """The entry of the earliest playout deadline, if it would miss it behind the entry of the lowest rank."""
        if not self.by_playout_deadline or self.preempted:
            return None
        soonest = self.by_playout_deadline[0]
        latest_start = soonest.playout_deadline - PLAYOUT_SLACK_DURATIONS * soonest.duration
        return soonest if latest_start < now + self.entries[0].duration else None

    def next(self, now: float) -> _Entry:
        """The entry of the lowest rank, or of the earliest deadline of those that would miss theirs behind it."""
        first = self.entries[0]
        if self.preempted:
            return first
        at_risk = [
            entry
            for entry in self.entries
            if (latest := entry.latest_start) is not None and now <= latest < now + first.duration
        ]
        return min(at_risk, key=lambda entry: entry.latest_start or 0.0) if at_risk else first


class FairQueue:
    """Queued utterances, taken out in callers' rounds."""

    def __init__(self, sjf_window: float) -> None:
        self._sjf_window = sjf_window
        self._callers: dict[str, _Caller] = {}
        self._entries: dict[AttemptId, _Entry] = {}  # in order of arrival
        self._round = 0
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, attempt_id: AttemptId) -> bool:
        return attempt_id in self._entries

    def __iter__(self) -> Iterator[AttemptId]:
        return iter(self._entries)

    def add(self, utterance: QueuedUtterance, *, duration: float, now: float) -> None:
        """Add an utterance that is expected to take `duration` seconds."""
        self._arrivals += 1
        entry = _Entry(self._rank(utterance.terms, duration, now), self._arrivals, utterance, now, duration)
        # A caller that comes during a round waits for the next one, so that every round ends.
        if (caller := self._callers.get(utterance.terms.caller)) is None:
            caller = self._callers[utterance.terms.caller] = _Caller(self._round + 1)
        caller.add(entry)
        self._entries[utterance.attempt_id] = entry

    def remove(self, attempt_id: AttemptId) -> None:
        """Remove an utterance, if it is queued."""
        entry = self._entries.pop(attempt_id, None)
        if entry is not None:
            name = entry.utterance.terms.caller
            caller = self._callers[name]
            caller.remove(entry)
            if not caller.entries:
                del self._callers[name]

    def pop(self, now: float, *, without: Collection[str] = ()) -> QueuedUtterance:
        """Take out the next utterance, but none of the callers `without`. Raises ValueError if there is none."""
        callers = [caller for name, caller in self._callers.items() if name not in without]
        self._round = max(self._round, min(caller.round for caller in callers))
        in_round = [caller for caller in callers if caller.round <= self._round]
        if urgent := [(entry, caller) for caller in in_round if (entry := caller.most_urgent(now)) is not None]:
            entry, caller = min(urgent, key=lambda each: (each[0].playout_deadline, each[0]))
        else:
            caller = min(in_round, key=lambda caller: caller.entries[0])
            entry = caller.next(now)
        caller.preempted = entry is not caller.entries[0]
        caller.round = self._round + 1
        self.remove(entry.utterance.attempt_id)
        return entry.utterance

    def waits(self, *, without: Collection[str] = ()) -> bool:
        """Whether an utterance of any caller but those `without` is queued."""
        return any(name not in without for name in self._callers)

    def __getitem__(self, attempt_id: AttemptId) -> QueuedUtterance:
        """A queued utterance. Raises KeyError."""
        return self._entries[attempt_id].utterance

    def round_of(self, attempt_id: AttemptId) -> int:
        """The round in which a queued utterance has its turn. Raises KeyError."""
        entry = self._entries[attempt_id]
        caller = self._callers[entry.utterance.terms.caller]
        return caller.round + bisect_left(caller.entries, entry)

    def round_if_added(self, terms: Terms, *, duration: float, now: float) -> int:
        """The round in which an utterance of these terms would have its turn if it were added now."""
        queued = self._callers.get(terms.caller, _Caller(self._round + 1))
        rank = self._rank(terms, duration, now)
        return queued.round + bisect_right(queued.entries, rank, key=lambda entry: entry.rank)

    def listen(self, attempt_id: AttemptId, playout_deadline: float) -> None:
        """A listener waits for a queued utterance, too; its rank stays as it is. Raises KeyError."""
        entry = self._entries[attempt_id]
        if playout_deadline < entry.playout_deadline:
            caller = self._callers[entry.utterance.terms.caller]
            caller.remove(entry)
            terms = replace(entry.utterance.terms, playout_deadline=playout_deadline)
            entry = replace(entry, utterance=replace(entry.utterance, terms=terms))
            caller.add(entry)
            self._entries[attempt_id] = entry

    def oldest_arrival(self) -> float | None:
        """When the utterance that has waited longest arrived; None if the queue is empty."""
        oldest = next(iter(self._entries.values()), None)
        return None if oldest is None else oldest.arrival

    def seconds_ahead_of(self, utterance: QueuedUtterance, *, duration: float, now: float) -> float:
        """Seconds of queued work that would go before an utterance added now, if none came after it."""
        rank = self._rank(utterance.terms, duration, now)
        caller = self._callers.get(utterance.terms.caller, _Caller(self._round + 1))
        turn = caller.round + bisect_right(caller.entries, rank, key=lambda entry: entry.rank)
        # Every caller has a turn in each round before that one; within that round, lower ranks go first.
        return sum(
            entry.duration
            for other in self._callers.values()
            for round_, entry in enumerate(other.entries[: max(0, turn - other.round + 1)], other.round)
            if round_ < turn or entry.rank <= rank
        )

    @property
    def seconds(self) -> float:
        """Seconds of queued work."""
        return sum(entry.duration for entry in self._entries.values())

    def _rank(self, terms: Terms, duration: float, now: float) -> float:
        rank = now + self._sjf_window * duration
        if terms.playout_deadline is None:
            return rank
        return max(rank, terms.playout_deadline - PLAYOUT_SLACK_DURATIONS * duration)
