"""The takes of an utterance: one whose tokens or audio cannot be its text's is taken again with another seed.

A token model may miss its end, stop at once, fall silent, or repeat one sound until its budget is used up; with another
seed it seldom does so twice. A take is judged while its tokens are drawn, so that S3Gen makes no audio of a bad one.
The last take is handed out even if it is bad, with the reason.

The first take has the utterance's own seed. The seed of every further one follows from that and from its number.

Once a first piece of the first take's audio is handed out, no other take can follow it. So none is handed out if the
tokens so far are no sign of speech.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum

import numpy as np

from worker.contract import Utterance
from worker.engines.base import Samples, TakeReport
from worker.engines.chatterbox.token_budget import TOKENS_PER_SECOND, min_tokens

log = logging.getLogger(__name__)

SOUNDS = 6561
"""Speech tokens from this number on have no sound: upstream's SOS."""
SILENCE = 4299
"""Speech token of silence: upstream's S3GEN_SIL."""

LOOP_TOKENS = 3 * TOKENS_PER_SECOND
"""Tokens that are no speech if they are all alike, or the same few over and over. The longest pauses within a segment
of text are far shorter, and so are held sounds."""
MAX_LOOP_VALUES = 4
"""Silence and held sounds alternate between a few tokens."""
MAX_LOOP_PERIOD = LOOP_TOKENS // 3
"""Longest sound whose exact repetition is a loop, in tokens."""

SILENT_LEVEL = 0.001
"""Samples below it, -60 dB of full scale, are near zero."""
MAX_SILENT_SECONDS = 3.0
"""Near-zero audio between two sounds of one segment, at most."""

TAKE_SHARE = 3.0
"""A whole take, audio included, takes at most so many times as long as a bad one before it took."""


class Flaw(StrEnum):
    """Why a take cannot be its text."""

    CUT = "cut"  # it used up its token budget: the model missed its end
    SHORT = "short"  # it ended after too few tokens for the text
    SILENT = "silent"  # it fell silent, or is silence altogether
    LOOP = "loop"  # it repeats one sound


class Takes:
    """The takes of one utterance, at most `retakes` after the first.

    An utterance with a token budget of its own measures the engine: it is taken once and not judged.
    """

    def __init__(self, utterance: Utterance, retakes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.utterance = utterance
        self._judged = utterance.token_budget is None
        self._retakes = retakes if self._judged else 0
        self._fewest = min_tokens(utterance.text)
        self._clock = clock
        self._started = self._take_started = clock()
        self._discarded: list[Flaw] = []
        self._flaw: Flaw | None = None
        self._given_up = False
        self._last_logged = False

    @property
    def seed(self) -> int:
        """The seed of the current take."""
        return take_seed(self.utterance.seed, len(self._discarded))

    def spoiled(self, tokens: Sequence[int]) -> bool:
        """Whether the take is already bad, by its tokens so far, and can be given up for another.

        The last take is never given up: the model may yet go on with its text.
        """
        flaw = loop_in(tokens)
        if flaw is None or not self._another_fits():
            return False
        self._flaw = flaw
        self._given_up = True
        return True

    def judge_tokens(self, tokens: Sequence[int], *, cut: bool) -> None:
        """Judge a take by all its tokens that have a sound; `cut`: the model did not end it."""
        if not self._judged or self._flaw is not None:
            return
        if cut:
            self._flaw = loop_in(tokens) or Flaw.CUT
        elif len(tokens) < self._fewest:
            self._flaw = Flaw.SHORT
        elif len(tokens) - tokens.count(SILENCE) < self._fewest:
            self._flaw = Flaw.SILENT
        if self._flaw is not None and len(self._discarded) >= self._retakes:
            self._log_last()

    def hand_out_first_piece(self, tokens: Sequence[int]) -> bool:
        """Whether a first piece may be made of the tokens so far; if so, no take follows.

        Only the first take may have one: whether there is a second depends on the time that is left, and an utterance
        that is retried must begin as it did before.
        """
        if self._discarded or (self._judged and len(set(tokens)) <= MAX_LOOP_VALUES):
            return False
        self._retakes = 0
        return True

    def judge_audio(self, samples: Samples, sample_rate: int) -> None:
        """Judge a take by its audio, which no tokens may have foretold."""
        if self._judged and self._flaw is None and is_silent(samples, sample_rate, self._fewest / TOKENS_PER_SECOND):
            self._flaw = Flaw.SILENT

    def discard(self) -> bool:
        """Whether the take is bad and another one follows, which has begun then."""
        if self._flaw is None:
            return False
        if not self._given_up and not self._another_fits():
            return False
        self._log_flaw("and taken again")
        self._discarded.append(self._flaw)
        self._flaw, self._given_up = None, False
        self._take_started = self._clock()
        return True

    def finish(self) -> TakeReport:
        """The takes that were discarded, and what is wrong with the one that is handed out, which the log has, too."""
        if self._flaw is not None and not self._last_logged:
            self._log_last()
        return TakeReport(tuple(self._discarded), self._flaw)

    def _log_last(self) -> None:
        self._last_logged = True
        self._log_flaw("and the last: it is handed out")

    def _log_flaw(self, consequence: str) -> None:
        ids = {"utterance": self.utterance.id, "request": self.utterance.request_id}
        number = len(self._discarded) + 1
        log.warning("take %d is bad (%s) %s", number, self._flaw, consequence, extra={"fields": ids})

    def _another_fits(self) -> bool:
        if len(self._discarded) >= self._retakes:
            return False
        limit, now = self.utterance.time_limit, self._clock()
        return limit is None or now - self._started + TAKE_SHARE * (now - self._take_started) <= limit


def take_seed(seed: int, take: int) -> int:
    """The seed of an utterance's take, of which the first is number 0 and has the utterance's own."""
    return seed if take == 0 else int(np.random.SeedSequence((seed, take)).generate_state(1)[0])


def first_piece_seed(seed: int) -> int:
    """The seed of the noise of a take whose audio is made in pieces, by the seed of the take."""
    return int(np.random.SeedSequence((seed, 0)).generate_state(1)[0])


def loop_in(tokens: Sequence[int]) -> Flaw | None:
    """The flaw of a take that ends in a loop; None: it does not."""
    recent = list(tokens[-LOOP_TOKENS:])
    if len(recent) < LOOP_TOKENS:
        return None
    if len(set(recent)) <= MAX_LOOP_VALUES:
        [(commonest, _)] = Counter(recent).most_common(1)
        return Flaw.SILENT if commonest == SILENCE else Flaw.LOOP
    repeats = any(recent[period:] == recent[:-period] for period in range(1, MAX_LOOP_PERIOD + 1))
    return Flaw.LOOP if repeats else None


def is_silent(samples: Samples, sample_rate: int, fewest_seconds: float) -> bool:
    """Whether audio is near zero for too long between two sounds, or has less than `fewest_seconds` of sound."""
    frame = sample_rate // 100
    frames = np.abs(samples[: len(samples) // frame * frame].reshape(-1, frame)).max(axis=1, initial=0.0)
    sounding = np.flatnonzero(frames >= SILENT_LEVEL)
    if len(sounding) * frame < fewest_seconds * sample_rate or not len(sounding):
        return True
    return bool(np.diff(sounding).max(initial=0) * frame > MAX_SILENT_SECONDS * sample_rate)
