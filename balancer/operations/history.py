"""The last hour of a server in numbers: a ring of seconds and one of minutes, of fixed size.

It is given what was counted since the start (`Totals`) once a second. The difference of two such totals is what
happened between them, whatever their distance. No I/O.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from math import floor
from operator import sub

from balancer.time_histogram import percentile

SECONDS_KEPT = 180
MINUTES_KEPT = 60
MINUTE = 60

PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
DIGITS = 4

Value = float | None
"""A count, a mean, or seconds; None for a percentile where nothing was measured."""


@dataclass(frozen=True, slots=True)
class Totals:
    """All that was counted since the start. Names are paths, such as `requests.speech.ok`; none is in two fields.

    No name ever goes; those of `times` are always the same.
    """

    counts: Mapping[str, float]
    """Values that only grow."""
    levels: Mapping[str, float]
    """Present values that rise and fall."""
    times: Mapping[str, Sequence[int]]
    """Counts of a TimeHistogram."""


class _Names:
    """Names in the order in which they first came, and rows of values in this order."""

    def __init__(self) -> None:
        self.all: dict[str, None] = {}

    def row(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """The values; a later row may be longer."""
        self.all |= dict.fromkeys(values)
        return tuple([values.get(name, 0.0) for name in self.all])


@dataclass(frozen=True, slots=True)
class _Mark:
    """The totals at one moment, and the sums of the levels of all samples until then."""

    at: float
    samples: int
    counts: tuple[float, ...]
    level_sums: tuple[float, ...]
    times: tuple[array[int], ...]


@dataclass(frozen=True, slots=True)
class _Interval:
    """The values between two marks, with numbers as they are shown: each is used for minutes."""

    at: float
    seconds: float
    counts: tuple[float, ...]
    levels: tuple[float, ...]
    times: tuple[Value, ...]


class History:
    """Seconds of the last three minutes, minutes of the last hour.

    `clock` is monotonic, in seconds; `started_at` is the Unix time now. The times of intervals only grow, also where
    the host's clock is set.
    """

    def __init__(self, clock: Callable[[], float], started_at: float) -> None:
        self._clock = clock
        self._offset = started_at - clock()
        self.started_at = started_at
        self._counts, self._levels = _Names(), _Names()
        self._times: list[str] = []
        self._seconds: deque[_Interval] = deque(maxlen=SECONDS_KEPT)
        self._minutes: deque[_Interval] = deque(maxlen=MINUTES_KEPT)
        self._second_marks: deque[_Mark] = deque(maxlen=MINUTE + 1)
        self._minute_marks: deque[_Mark] = deque(maxlen=MINUTES_KEPT + 1)

    def add(self, totals: Totals) -> None:
        """Record what is counted until now. To be called once a second; a call that is late makes a longer interval."""
        levels = self._levels.row(totals.levels)
        before = self._second_marks[-1] if self._second_marks else None
        mark = _Mark(
            at=round(self._clock() + self._offset, 3),
            samples=before.samples + 1 if before else 1,
            counts=self._counts.row(totals.counts),
            level_sums=_added(levels, before.level_sums) if before else levels,
            times=tuple([array("Q", counts) for counts in totals.times.values()]),
        )
        self._second_marks.append(mark)
        if before is None:
            self._times = [f"{name}.{key}" for name in totals.times for key in PERCENTILES]
            self._minute_marks.append(mark)
            return
        self._seconds.append(_between(before, mark))
        if floor(mark.at / MINUTE) > floor(before.at / MINUTE):
            self._minutes.append(_between(self._minute_marks[-1], mark))
            self._minute_marks.append(mark)

    @property
    def latest(self) -> float:
        """Unix time at which the last interval ended; the start if there is none."""
        return self._seconds[-1].at if self._seconds else self.started_at

    def seconds(self, since: float = 0.0) -> dict[str, Sequence[Value]]:
        """A column for each name, of the seconds that ended after `since`, the oldest first.

        `at` and `seconds` are the ends, in Unix time, and the lengths.
        """
        return self._columns([interval for interval in self._seconds if interval.at > since])

    def minutes(self, since: float = 0.0) -> dict[str, Sequence[Value]]:
        """The same of whole minutes. The first one may be shorter."""
        return self._columns([interval for interval in self._minutes if interval.at > since])

    @property
    def last_minute(self) -> dict[str, Value] | None:
        """The values of the last 60 seconds, or what there is of them; None before there is anything."""
        return self._since(self._second_marks)

    @property
    def last_hour(self) -> dict[str, Value] | None:
        """The values of the last 60 whole minutes and the one that has begun, or what there is of them."""
        return self._since(self._minute_marks)

    def _since(self, marks: deque[_Mark]) -> dict[str, Value] | None:
        if not self._seconds:
            return None
        columns = self._columns([_between(marks[0], self._second_marks[-1])])
        return {name: column[0] for name, column in columns.items()}

    def _columns(self, intervals: list[_Interval]) -> dict[str, Sequence[Value]]:
        return {
            "at": [interval.at for interval in intervals],
            "seconds": [interval.seconds for interval in intervals],
            **_transposed(list(self._counts.all), [interval.counts for interval in intervals]),
            **_transposed(list(self._levels.all), [interval.levels for interval in intervals]),
            **_transposed(self._times, [interval.times for interval in intervals]),
        }


def _transposed(names: list[str], rows: Sequence[tuple[Value, ...]]) -> dict[str, Sequence[Value]]:
    """The columns of rows, of which older ones may be shorter."""
    columns: list[tuple[Value, ...]] = list(zip_longest(*rows, fillvalue=0))
    missing = len(names) - len(columns)
    return dict(zip(names, [*columns, *[(0,) * len(rows)] * missing], strict=True))


def _between(start: _Mark, end: _Mark) -> _Interval:
    samples = end.samples - start.samples
    return _Interval(
        at=end.at,
        seconds=round(end.at - start.at, 3),
        counts=_shown(_grown(end.counts, start.counts)),
        levels=_shown([total / samples for total in _grown(end.level_sums, start.level_sums)]),
        times=tuple(chain.from_iterable(map(_read, end.times, start.times))),
    )


def _grown(now: tuple[float, ...], before: tuple[float, ...]) -> list[float]:
    return list(map(sub, now, before)) + list(now[len(before) :])


def _added(levels: tuple[float, ...], sums: tuple[float, ...]) -> tuple[float, ...]:
    return tuple([level + total for level, total in zip_longest(levels, sums, fillvalue=0.0)])


def _read(now: array[int], before: array[int]) -> tuple[Value, ...]:
    if now == before:  # as in most of the seconds of a quiet server
        return _NOTHING_MEASURED
    counts = list(map(sub, now, before))
    found = [percentile(counts, share) for share in PERCENTILES.values()]
    return tuple([None if seconds is None else round(seconds, DIGITS) for seconds in found])


_NOTHING_MEASURED: tuple[Value, ...] = (None,) * len(PERCENTILES)


def _shown(values: list[float]) -> tuple[float, ...]:
    """Numbers of few digits."""
    return tuple([int(value) if value == value // 1 else round(value, DIGITS) for value in values])
