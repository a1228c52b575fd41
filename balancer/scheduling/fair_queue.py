"""The order in which utterances of one priority leave the line. Pure; the scheduler has one line for each priority.

Callers take turns, in rounds: each that waits when a round begins gets one utterance into it, and who comes later waits
for the next. Within a round, and among one caller's own, the lowest rank goes first:

    rank = arrival + sjf_window * expected duration

So a short utterance passes longer ones, but nobody is passed by what came more than `sjf_window` times its own expected
duration after it; with 0, ranks are arrivals. One exception: a caller's utterance that would miss its deadline behind
its mate goes before it, unless the mate is as pressed, though never twice in a row, so that the bound at most doubles.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from balancer.scheduling.priority import Priority


@dataclass(frozen=True)
class Order:
    """What is known of an utterance that wants a slot."""

    ticket: str
    audio_seconds: float
    """Expected."""
    caller: str = ""
    priority: Priority = Priority.INTERACTIVE
    deadline: float | None = None
    """On the clock that `now` is read from."""


@dataclass(frozen=True, order=True)
class _Place:
    rank: float
    number: int
    """Of arrival: decides between equal ranks."""
    order: Order = field(compare=False)
    arrival: float = field(compare=False)
    duration: float = field(compare=False)

    @property
    def latest_start(self) -> float | None:
        """When it must start to be done in time."""
        return None if self.order.deadline is None else self.order.deadline - self.duration


@dataclass
class _Caller:
    round: int
    places: list[_Place] = field(default_factory=list)
    """By rank."""
    jumped: bool = False
    """Whether its last turn went to a deadline rather than to the lowest rank."""

    def next(self, now: float) -> _Place:
        first = self.places[0]
        if self.jumped:
            return first
        at_risk = [
            place
            for place in self.places
            if (at := place.latest_start) is not None and now <= at < now + first.duration
        ]
        return min(at_risk, key=lambda place: place.latest_start or 0.0) if at_risk else first


class Line:
    """Utterances that wait, in callers' rounds."""

    def __init__(self, sjf_window: float) -> None:
        self._sjf_window = sjf_window
        self._callers: dict[str, _Caller] = {}
        self._places: dict[str, _Place] = {}  # in order of arrival
        self._round = 0
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, ticket: str) -> bool:
        return ticket in self._places

    def add(self, order: Order, *, duration: float, now: float) -> None:
        """Put an utterance that is expected to take `duration` seconds in its caller's place."""
        self._arrivals += 1
        place = _Place(now + self._sjf_window * duration, self._arrivals, order, now, duration)
        # Whoever comes while a round is under way waits for the next, so that every round ends.
        caller = self._callers.setdefault(order.caller, _Caller(self._round + 1))
        insort(caller.places, place)
        self._places[order.ticket] = place

    def remove(self, ticket: str) -> None:
        """Take an utterance out, if it is there."""
        place = self._places.pop(ticket, None)
        if place is not None:
            caller = self._callers[place.order.caller]
            del caller.places[bisect_left(caller.places, place)]
            if not caller.places:
                del self._callers[place.order.caller]

    def pop(self, now: float) -> Order:
        """Take the next one out. Raises ValueError where nobody waits."""
        self._round = max(self._round, min(caller.round for caller in self._callers.values()))
        turns = (caller for caller in self._callers.values() if caller.round <= self._round)
        caller = min(turns, key=lambda caller: caller.places[0])
        place = caller.next(now)
        caller.jumped = place is not caller.places[0]
        caller.round = self._round + 1
        self.remove(place.order.ticket)
        return place.order

    def oldest(self) -> float | None:
        """When the one that waits longest arrived; None where nobody waits."""
        return next((place.arrival for place in self._places.values()), None)

    def ahead_of(self, order: Order, *, duration: float, now: float) -> float:
        """Seconds of work that would go before an utterance that joined now."""
        rank = now + self._sjf_window * duration
        own = self._callers.get(order.caller, _Caller(self._round + 1))
        turn = own.round + bisect_right(own.places, rank, key=lambda place: place.rank)
        # Up to that round everybody has a turn in each; in it, whose rank is lower.
        return sum(
            place.duration
            for caller in self._callers.values()
            for round_, place in enumerate(caller.places[: max(0, turn - caller.round + 1)], caller.round)
            if round_ < turn or place.rank <= rank
        )

    @property
    def work(self) -> float:
        """Seconds of work that wait."""
        return sum(place.duration for place in self._places.values())

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)
