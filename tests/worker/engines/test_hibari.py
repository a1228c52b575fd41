"""The embedded engine as it is: reproducible, bounded in memory and time, and not thrown by any text."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.harness import ROOT
from tests.support.real_worker import CPU, SENTENCE, utterance
from voices.registry import Voice
from worker.cards import CARDS
from worker.engines import load
from worker.engines.base import Cancellation, CancelledError, Engine, Samples, UnspeakableError, VoiceSource
from worker.engines.hibari import MAX_CHUNK_PHONEMES, MAX_RUN_CHARACTERS, HibariEngine, to_phonemizable
from worker.options import EngineOptions

SOURCE = VoiceSource(Voice(name="default", engine="*"), None)

ENDLESS = (SENTENCE.replace(".", "") * 60)[:5000]
"""5,000 characters without a full stop or a comma."""

SAY = """if True:
    import hashlib, sys
    from worker.cpu_affinity import confine
    confine([int(sys.argv[1])], 1)
    import numpy as np
    from voices.registry import Voice
    from worker.contract import Utterance
    from worker.engines.base import Cancellation, VoiceSource
    from worker.engines.hibari import HibariEngine
    engine = HibariEngine(1)
    utterance = Utterance(id="u", text=sys.stdin.read(), voice="default", seed=7)
    digest = hashlib.sha256()
    for piece in engine.synthesize(utterance, VoiceSource(Voice(name="default", engine="*"), None), Cancellation()):
        digest.update(piece.tobytes())
    status = open("/proc/self/status").read()
    print(digest.hexdigest(), int(status.partition("VmHWM:")[2].split()[0]) * 1024)
"""


@pytest.fixture(scope="module")
def engine() -> HibariEngine:
    return HibariEngine(1)


def pieces(engine: Engine, text: str, seed: int = 7, cancellation: Cancellation | None = None) -> Iterator[Samples]:
    return engine.synthesize(utterance(text, seed=seed), SOURCE, cancellation or Cancellation())


def say(engine: Engine, text: str, seed: int = 7) -> Samples:
    return np.concatenate(list(pieces(engine, text, seed)))


def say_elsewhere(text: str) -> tuple[str, int]:
    """Digest of the samples, and peak memory in bytes, of a process that speaks this one text."""
    done = subprocess.run(
        [sys.executable, "-c", SAY, str(CPU)], input=text, cwd=ROOT, capture_output=True, text=True, check=True
    )
    digest, peak = done.stdout.split()
    return digest, int(peak)


# Samples


def test_it_is_what_its_card_says(engine: HibariEngine) -> None:
    assert engine.card is CARDS["hibari"]
    assert engine.card.sample_rate == 24_000
    assert (engine.slots, engine.model) == (1, "hibari/heart")
    engine.prepare(SOURCE)


def test_sound_that_is_as_long_as_speech(engine: HibariEngine) -> None:
    text = "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background."
    samples = say(engine, text)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert np.abs(samples).max() <= 1
    assert np.sqrt(np.mean(samples**2)) > 0.01
    seconds = len(samples) / engine.card.sample_rate
    assert 0.5 < seconds / (engine.card.seconds_per_character * len(text)) < 2


def test_loaded_by_name(tmp_path: Path) -> None:
    assert isinstance(load(EngineOptions("hibari", tmp_path)), HibariEngine)
    with pytest.raises(ValueError, match="no engine 'parrot'"):
        load(EngineOptions("parrot", tmp_path))


# The same utterance always makes the same samples


def test_the_seed_decides_whatever_was_said_before(engine: HibariEngine) -> None:
    text = "The quick brown fox jumps. Over the lazy dog!"
    first = say(engine, text)
    for other, seed in (("Hello there.", 7), (text, 8), ("Zxqv 9,999 things!", 0)):
        say(engine, other, seed)
        assert np.array_equal(say(engine, text), first)


def test_utterances_that_take_turns_do_not_hear_each_other(engine: HibariEngine) -> None:
    texts = ["One. Two. Three.", "Four. Five. Six."]
    alone = [list(pieces(engine, text)) for text in texts]
    together = list(zip(*(pieces(engine, text) for text in texts), strict=True))
    for spoken, expected in zip(zip(*together, strict=True), alone, strict=True):
        assert all(map(np.array_equal, spoken, expected))


def test_another_seed_makes_other_samples(engine: HibariEngine) -> None:
    one, other = say(engine, "Hello there."), say(engine, "Hello there.", seed=8)
    assert len(one) == len(other)
    assert not np.array_equal(one, other)


def test_another_process_makes_the_same_samples(engine: HibariEngine) -> None:
    text = f"{SENTENCE} And so on: 1,234 xyzzyks."
    digest, _ = say_elsewhere(text)
    assert digest == hashlib.sha256(say(engine, text).tobytes()).hexdigest()


# Bounds


def test_memory_stays_within_the_card_on_an_endless_sentence() -> None:
    _, peak = say_elsewhere(ENDLESS)
    assert 64 * 2**20 < peak < CARDS["hibari"].resident_bytes


def test_an_endless_sentence_comes_in_pieces(engine: HibariEngine) -> None:
    sizes = [len(piece) for piece in pieces(engine, ENDLESS[:1500])]
    assert len(sizes) > 2
    assert max(sizes) < 40 * 24_000


def test_cancellation_between_pieces(engine: HibariEngine) -> None:
    cancellation = Cancellation()
    speaking = pieces(engine, "One. Two. Three.", cancellation=cancellation)
    assert len(next(speaking)) > 0
    cancellation.request()
    with pytest.raises(CancelledError):
        next(speaking)


def test_cancelled_before_the_first_piece(engine: HibariEngine) -> None:
    cancellation = Cancellation()
    cancellation.request()
    with pytest.raises(CancelledError):
        next(pieces(engine, "One.", cancellation=cancellation))


# Words survive the cutting


def without_spaces(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(
    "text",
    [ENDLESS, "Hello there. " * 20, "supercalifragilistic" * 60, "x" * 1000, "1" * 700, f"{'well-' * 90}known"],
    ids=["endless", "short", "no-space", "letters", "digits", "hyphens"],
)
def test_no_phoneme_is_lost_between_pieces(engine: HibariEngine, text: str) -> None:
    whole = "".join(engine._hibari.phonemize(to_phonemizable(text)))
    cut = list(engine._chunks(text))
    assert max(map(len, cut)) <= MAX_CHUNK_PHONEMES
    assert without_spaces("".join(cut)) == without_spaces(whole)


def test_words_stay_whole(engine: HibariEngine) -> None:
    words = {word for phonemes in engine._hibari.phonemize(ENDLESS) for word in phonemes.split()}
    cut = [word for piece in engine._chunks(ENDLESS) for word in piece.split()]
    assert set(cut) <= words


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_making_a_text_phonemizable_loses_nothing(text: str) -> None:
    made = to_phonemizable(text)
    assert max(map(len, made.split()), default=0) <= MAX_RUN_CHARACTERS
    if all(character.isdecimal() or not character.isdigit() for character in text):
        assert without_spaces(made) == without_spaces(text)


@pytest.mark.parametrize("text", ["", "Hello there.", "https://example.com/a/page?of=thirty", "1" * 36, ENDLESS])
def test_common_text_is_left_alone(text: str) -> None:
    assert to_phonemizable(text) == text


def test_a_long_run_is_cut_after_punctuation() -> None:
    assert to_phonemizable("a" * 30 + "-" + "b" * 30) == "a" * 30 + "- " + "b" * 30
    assert to_phonemizable("a" * 80) == "a" * 36 + " " + "a" * 36 + " " + "a" * 8
    assert to_phonemizable("①² x³") == "12 x3"


# Odd texts


@pytest.mark.parametrize(
    "text", ["", " \n\n", "你好,世界。", "日本語", "😀🎉!", "...", "\x00\x07", "\u200b", "[a](/日/)"]
)
def test_what_cannot_be_said(engine: HibariEngine, text: str) -> None:
    with pytest.raises(UnspeakableError, match="nothing that this English voice can say"):
        next(pieces(engine, text))


@pytest.mark.parametrize("text", ["你好 hello", "①Ⅳ", "9" * 37, "9" * 5000, "²", "½", "[a](/日/) b", "٣٤"])
def test_texts_that_threw_the_phonemizer(engine: HibariEngine, text: str) -> None:
    assert len(next(pieces(engine, text))) > 0


@pytest.mark.parametrize("text", ["a-" * 300, "camelCase" * 150, "a1" * 600, "path/to/" * 100])
def test_runs_without_a_space_take_no_time_to_speak_of(engine: HibariEngine, text: str) -> None:
    began = time.thread_time()
    assert len(list(engine._chunks(text))) > 0
    assert time.thread_time() - began < 5


@settings(max_examples=30, deadline=None)
@given(
    st.text(
        st.one_of(
            st.characters(categories=["L", "N", "P", "S", "Z"]),
            st.sampled_from("etaoin shrdlu .,;:!?'\"-/()[]0123456789$%😀👍🏽é²①"),
        ),
        max_size=200,
    )
)
def test_any_text_gives_audio_or_is_unspeakable(engine: HibariEngine, text: str) -> None:
    try:
        samples = say(engine, text)
    except UnspeakableError:
        return
    assert samples.dtype == np.float32
    assert len(samples) > 0
    assert np.abs(samples).max() <= 1
