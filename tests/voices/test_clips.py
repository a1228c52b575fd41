"""Reference clips of every format, and their possible defects."""

from __future__ import annotations

import struct
import tracemalloc
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
from hibari import Hibari
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.recordings import RATE, noise, record, silence, speech
from voices import clips
from voices.clips import Clip, ClipError

GOOD = Clip(
    suffix=".wav",
    sample_rate=24_000,
    seconds=12.0,
    speech_seconds=9.0,
    used_speech_seconds=9.0,
    level=-25.0,
    peak=0.5,
    clipped=0.0,
    contrast=15.0,
    cancelled=0.0,
)

KINDS: dict[str, tuple[str, ...]] = {
    "clip.wav": (),
    "clip.mp3": (),
    "clip.flac": (),
    "clip.m4a": (),
    "alac.m4a": ("-c:a", "alac"),
    "clip.aac": (),
    "opus.webm": ("-c:a", "libopus"),
    "vorbis.webm": ("-c:a", "libvorbis"),
    "clip.aiff": (),
    "bits24.aiff": ("-c:a", "pcm_s24be"),
    "clip.caf": (),
    "alac.caf": ("-c:a", "alac"),
    "clip.wma": (),
    "vorbis.ogg": ("-c:a", "libvorbis"),
    "opus.ogg": ("-c:a", "libopus"),
    "float.wav": ("-c:a", "pcm_f32le"),
    "bytes.wav": ("-c:a", "pcm_u8"),
    "stereo.wav": ("-ac", "2"),
}


def float_wav(path: Path, samples: NDArray[np.float32], rate: int = RATE) -> Path:
    """A WAV file of these float samples, which may be NaN or infinite."""
    data = samples.astype("<f4").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, 1, rate, rate * 4, 4, 32,
                       b"data", len(data))  # fmt: skip
    path.write_bytes(head + data)
    return path


# Measurements


@pytest.mark.parametrize(("name", "options"), KINDS.items(), ids=KINDS)
def test_every_format_is_measured(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    path = record(tmp_path / name, speech(4), silence(2), speech(3), options=options)
    clip = clips.inspect(path)
    assert clip.suffix == path.suffix
    assert clip.sample_rate == (48_000 if name.startswith("opus") else RATE)
    assert clip.seconds == pytest.approx(9, abs=0.1)
    assert clip.speech_seconds == pytest.approx(7, abs=0.2)
    assert clip.used_speech_seconds == clip.speech_seconds
    # An encoder may overshoot, and ffmpeg's stereo of a mono sound is 3 dB softer.
    softer = 3 if name == "stereo.wav" else 0
    assert clip.level == pytest.approx(20 * np.log10(speech(4).std()) - softer, abs=0.5)
    assert clip.peak == pytest.approx(0.3 * 10 ** (-softer / 20), abs=0.1)
    assert clip.clipped == 0
    assert clip.cancelled == pytest.approx(0, abs=0.01)
    assert 15 < clip.contrast < 22
    assert clips.faults(clip) == clips.notes(clip) == ()


def test_real_speech_has_pauses(tmp_path: Path) -> None:
    hibari = Hibari(threads=1)
    text = "The river keeps its own time, and nobody owns a clock. In spring it rises to the old landing. " * 2
    spoken = np.concatenate([hibari.from_ids(hibari.ids(phonemes)) for phonemes in hibari.phonemize(text)])
    pause = silence(4)
    clip = clips.inspect(record(tmp_path / "clip.wav", spoken.astype(np.float32), pause))
    assert 0.6 * len(spoken) / RATE < clip.speech_seconds < 0.95 * len(spoken) / RATE
    assert -35 < clip.level < -15
    assert clips.faults(clip) == ()


def test_the_format_is_found_in_the_content_not_in_the_name(tmp_path: Path) -> None:
    path = record(tmp_path / "clip.mp3", speech(6)).rename(tmp_path / "clip.wav")
    assert clips.inspect(path).suffix == ".mp3"


def test_clipping_is_counted_in_any_channel(tmp_path: Path) -> None:
    path = record(tmp_path / "clip.wav", speech(6), options=("-af", "pan=stereo|c0=0*c0|c1=4*c0"))
    clip = clips.inspect(path)
    assert clip.peak == pytest.approx(1, abs=0.001)
    assert clip.clipped > clips.MAX_CLIPPED_SHARE


def test_a_click_does_not_mask_the_speech(tmp_path: Path) -> None:
    click = np.full(240, 0.98, np.float32)
    click[::2] *= -1
    quiet = speech(8, peak=0.05)
    assert clips.inspect(record(tmp_path / "clip.wav", quiet, click)).speech_seconds == pytest.approx(8, abs=0.1)


def test_soft_noise_in_the_pauses_is_no_speech(tmp_path: Path) -> None:
    clip = clips.inspect(record(tmp_path / "clip.wav", speech(6), noise(5, level=0.001)))
    assert clip.speech_seconds == pytest.approx(6, abs=0.1)


def test_a_constant_offset_is_silence(tmp_path: Path) -> None:
    clip = clips.inspect(float_wav(tmp_path / "clip.wav", silence(6) + np.float32(0.5)))
    assert (clip.level, clip.speech_seconds) == (-inf, 0)
    assert clip.peak == 0.5


def test_very_soft_sound_is_silence(tmp_path: Path) -> None:
    clip = clips.inspect(float_wav(tmp_path / "clip.wav", speech(6, peak=0.001)))
    assert (clip.level, clip.speech_seconds) == (-inf, 0)
    assert clips.faults(clip) == ("it is silent: record it again, with the microphone on",)


def test_speech_after_the_used_seconds_does_not_count_as_used(tmp_path: Path) -> None:
    clip = clips.inspect(record(tmp_path / "clip.flac", silence(12), speech(8)))
    assert clip.speech_seconds == pytest.approx(8, abs=0.1)
    assert clip.used_speech_seconds == pytest.approx(3, abs=0.1)


def test_only_the_beginning_is_analysed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "MAX_ANALYSED_SECONDS", 10.0)
    path = record(tmp_path / "clip.flac", speech(60))
    clip = clips.inspect(path)
    assert clip.seconds == 10
    assert clip.speech_seconds == pytest.approx(10, abs=0.5)


def test_a_long_recording_takes_little_memory(tmp_path: Path) -> None:
    path = record(tmp_path / "clip.flac", speech(20), options=("-af", "aloop=loop=8:size=480000"))
    tracemalloc.start()
    clip = clips.inspect(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert clip.seconds == pytest.approx(180, abs=1)
    assert most < 180 * RATE  # a quarter of its samples


def test_the_smallest_clip(tmp_path: Path) -> None:
    clip = clips.inspect(float_wav(tmp_path / "clip.wav", np.array([0.25], np.float32)))
    assert (clip.seconds, clip.speech_seconds, clip.level, clip.peak) == (1 / RATE, 0, -inf, 0.25)


def test_the_loudest_possible_samples(tmp_path: Path) -> None:
    loud = np.random.default_rng(0).choice(np.array([-3.4e38, 3.4e38], np.float32), 6 * RATE)
    clip = clips.inspect(float_wav(tmp_path / "clip.wav", loud))
    assert clip.clipped == 1
    assert clip.level == pytest.approx(770.6, abs=0.1)


# Errors


def refused(path: Path) -> str:
    with pytest.raises(ClipError) as caught:
        clips.inspect(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent.wav") == f"there is no file {tmp_path / 'absent.wav'}"
    assert refused(tmp_path).startswith("there is no file")


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record(tmp_path / "clip.wav", speech(6))

    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    assert refused(path) == f"cannot read {path}: Permission denied"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello " * 1000,
        b"RIFF",
        np.random.default_rng(0).bytes(100_000),
        b"#EXTM3U\n#EXTINF:10,\nother.wav\n",
        b"ffconcat version 1.0\nfile other.wav\n",
    ],
    ids=["empty", "text", "riff", "random", "m3u", "concat"],
)
@pytest.mark.parametrize("suffix", [".wav", ".mp3"])
def test_files_that_are_not_audio(tmp_path: Path, content: bytes, suffix: str) -> None:
    record(tmp_path / "other.wav", speech(6))
    path = tmp_path / f"clip{suffix}"
    path.write_bytes(content)
    assert "cannot be decoded: it must be a whole file of wav, mp3, flac" in refused(path)


@pytest.mark.parametrize(("name", "options"), [("clip.avi", ()), ("clip.au", ()), ("clip.mka", ("-f", "mpegts"))])
def test_audio_of_other_formats(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    assert "cannot be decoded" in refused(record(tmp_path / name, speech(6), options=options))


def test_pictures_without_sound(tmp_path: Path) -> None:
    options = ("-f", "lavfi", "-i", "color=red:s=64x64:d=1", "-map", "1")
    assert "has no audio stream" in refused(record(tmp_path / "clip.mp4", speech(1), options=options))


def test_a_file_without_samples(tmp_path: Path) -> None:
    assert "has no samples" in refused(float_wav(tmp_path / "clip.wav", silence(0)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(tmp_path: Path, value: float) -> None:
    samples = speech(6)
    samples[1000] = value
    assert "is damaged: some of its samples are not finite numbers" in refused(
        float_wav(tmp_path / "clip.wav", samples)
    )


@pytest.mark.parametrize("name", ["clip.flac", "clip.m4a"])
def test_a_file_that_is_cut_off(tmp_path: Path, name: str) -> None:
    path = record(tmp_path / name, speech(8))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cannot be decoded" in refused(path)


def test_a_file_shorter_than_its_header_states(tmp_path: Path) -> None:
    path = record(tmp_path / "clip.flac", speech(8))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rfind(b"\xff\xf8", 0, len(whole) // 2)])  # up to where a frame begins
    assert "is truncated: its header states 8.0 s, but it holds" in refused(path)


@pytest.mark.parametrize("name", ["clip.mp3", "clip.m4a"])
def test_garbage_in_the_middle(tmp_path: Path, name: str) -> None:
    path = record(tmp_path / name, speech(8))
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 4000] = np.random.default_rng(1).bytes(4000)
    path.write_bytes(damaged)
    assert "cannot be decoded" in refused(path)


def test_a_file_that_changes_its_sample_rate(tmp_path: Path) -> None:
    first = record(tmp_path / "first.flac", speech(4))
    second = record(tmp_path / "second.flac", speech(4), options=("-ac", "2"))
    path = tmp_path / "clip.flac"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    assert "changes its sample rate or channels midway" in refused(path)


@given(st.integers(0, 100_000), st.binary(min_size=1, max_size=200))
def test_damage_is_reported_or_harmless(tmp_path_factory: pytest.TempPathFactory, place: int, damage: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    pristine = folder / "pristine.mp3"
    if not pristine.exists():
        record(pristine, speech(6))
    content = bytearray(pristine.read_bytes())
    content[place % len(content) : place % len(content) + len(damage)] = damage
    path = folder / "damaged.mp3"
    path.write_bytes(content)
    try:
        clip = clips.inspect(path)
    except ClipError:
        return
    assert all(np.isfinite([clip.seconds, clip.speech_seconds, clip.peak, clip.clipped]))


# Channels


def channels(path: Path, sources: str, *sounds: NDArray[np.float32]) -> Clip:
    """The clip of a sound whose channels ffmpeg's filter `pan` makes of the one."""
    return clips.inspect(record(path, *sounds, options=("-af", f"pan={sources}")))


@pytest.mark.parametrize("name", ["clip.wav", "clip.flac", "clip.m4a", "clip.ogg", "clip.webm"])
def test_speech_in_the_centre_of_surround_sound_is_as_loud_as_in_both_of_two_channels(
    tmp_path: Path, name: str
) -> None:
    clip = channels(tmp_path / name, "5.1|FC=c0", speech(6))
    assert clip.level == pytest.approx(20 * np.log10(speech(6).std()) - 3, abs=0.5)
    assert clips.faults(clip) == ()


@pytest.mark.parametrize(("sources", "softer"), [("5.1|FL=c0", 6), ("quad|BL=c0", 9), ("stereo|c1=c0", 6)])
def test_speech_on_one_channel_is_not_cancelled(tmp_path: Path, sources: str, softer: float) -> None:
    clip = channels(tmp_path / "clip.wav", sources, speech(6))
    assert clip.cancelled == pytest.approx(softer, abs=0.1)
    assert clips.faults(clip) == ()


@pytest.mark.parametrize("sources", ["stereo|c0=c0|c1=-1*c0", "stereo|c0=c0|c1=-0.8*c0", "5.1|FL=c0|FR=-1*c0"])
def test_channels_that_cancel_each_other(tmp_path: Path, sources: str) -> None:
    (only_fault,) = clips.faults(channels(tmp_path / "clip.wav", sources, speech(6)))
    assert only_fault.startswith("its channels cancel each other when they are mixed, ")


def test_silence_of_two_channels_is_silence(tmp_path: Path) -> None:
    clip = channels(tmp_path / "clip.wav", "stereo|c0=c0|c1=-1*c0", silence(6))
    assert clips.faults(clip) == ("it is silent: record it again, with the microphone on",)


def test_a_wide_stereo_sound_is_not_cancelled(tmp_path: Path) -> None:
    path = record(tmp_path / "clip.wav", speech(6), options=("-af", "aecho=1:1:7:0.9,pan=stereo|c0=c0|c1=-0.3*c0"))
    assert clips.faults(clips.inspect(path)) == ()


def test_many_channels_are_refused(tmp_path: Path) -> None:
    path = record(tmp_path / "clip.wav", speech(6), options=("-af", "pan=16c|c0=c0"))
    assert refused(path) == f"{path} has 16 channels: save it as mono"


# Faults and notes


@pytest.mark.parametrize("seconds", [0.05, 0.3, 0.9, 2.0, 4.5])
def test_a_short_clip_of_normal_level_is_too_short_and_not_too_quiet(tmp_path: Path, seconds: float) -> None:
    clip = clips.inspect(record(tmp_path / "clip.wav", speech(seconds)))
    assert clip.level == pytest.approx(20 * np.log10(speech(4).std()), abs=3)
    (only_fault,) = clips.faults(clip)
    assert only_fault.startswith(f"it is too short, {seconds:.1f} s with ")


def test_a_word_between_silences_is_too_little_speech_and_not_too_quiet(tmp_path: Path) -> None:
    clip = clips.inspect(record(tmp_path / "clip.wav", silence(4), speech(0.3), silence(4)))
    (only_fault,) = clips.faults(clip)
    assert only_fault.startswith("it has 0.3 s of speech, and at least 5 s are needed")


def test_noise_is_no_speech(tmp_path: Path) -> None:
    colours = ("white", "pink", "brown")
    for colour in colours:
        options = ("-f", "lavfi", "-i", f"anoisesrc=color={colour}:amplitude=0.3:duration=8:seed=1", "-map", "1")
        clip = clips.inspect(record(tmp_path / f"{colour}.wav", silence(1), options=options))
        (only_fault,) = clips.faults(clip)
        assert only_fault.startswith("it is mostly noise, or a steady sound, whose loud and soft parts differ by ")


@pytest.mark.parametrize("hertz", [50, 440])
def test_a_steady_tone_is_no_speech(tmp_path: Path, hertz: float) -> None:
    tone = 0.2 * np.sin(2 * np.pi * hertz * np.arange(8 * RATE) / RATE)
    (only_fault,) = clips.faults(clips.inspect(record(tmp_path / "clip.wav", tone.astype(np.float32))))
    assert only_fault.startswith("it is mostly noise")


@pytest.mark.parametrize(("decibels", "fault"), [(20, False), (10, False), (0, True)])
def test_speech_in_noise(tmp_path: Path, decibels: float, fault: bool) -> None:
    clean = speech(8)
    noisy = clean + noise(8, level=float(clean.std()) * 10 ** (-decibels / 20))
    assert bool(clips.faults(clips.inspect(record(tmp_path / "clip.wav", noisy)))) is fault


def fault(**measured: float) -> str:
    (only_fault,) = clips.faults(replace(GOOD, **measured))  # type: ignore[arg-type]
    return only_fault


def test_a_good_clip_has_no_faults() -> None:
    assert clips.faults(GOOD) == clips.notes(GOOD) == ()


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (
            {"seconds": 3.0, "speech_seconds": 2.5, "used_speech_seconds": 2.5},
            "it is too short, 3.0 s with 2.5 s of speech, and at least 5 s of speech are needed: ",
        ),
        ({"cancelled": 20.0, "level": -60.0, "contrast": 1.0}, "its channels cancel each other when they are mixed, "),
        ({"contrast": 2.0}, "it is mostly noise, or a steady sound, whose loud and soft parts differ by 2 dB, "),
        (
            {"speech_seconds": 4.96, "used_speech_seconds": 4.96},
            "it has 5.0 s of speech, and at least 5 s are needed: ",
        ),
        (
            {"speech_seconds": 3.21, "used_speech_seconds": 3.21},
            "it has 3.2 s of speech, and at least 5 s are needed: ",
        ),
        ({"used_speech_seconds": 1.0}, "only its first 15 s are used; they have 1.0 s of speech"),
        ({"level": -40.6}, "it is too quiet, -41 dBFS, and at least -40 dBFS are needed: "),
        ({"level": -inf, "speech_seconds": 0.0, "used_speech_seconds": 0.0}, "it is silent: "),
        ({"clipped": 0.0123}, "it is clipped, 1.2% of its samples are at full scale: "),
        ({"sample_rate": 8000}, "its sample rate is 8000 Hz, and at least 16000 Hz are needed: "),
    ],
)
def test_each_fault_with_its_remedy(measured: dict[str, float], message: str) -> None:
    assert fault(**measured).startswith(message)
    assert ": " in fault(**measured)


@pytest.mark.parametrize(
    "measured",
    [
        {"speech_seconds": 5.0, "used_speech_seconds": 5.0},
        {"level": -40.0},
        {"clipped": 0.001},
        {"sample_rate": 16_000},
        {"contrast": 5.0},
        {"cancelled": 12.0},
    ],
)
def test_just_good_enough(measured: dict[str, float]) -> None:
    assert clips.faults(replace(GOOD, **measured)) == ()  # type: ignore[arg-type]


def test_all_faults_at_once(tmp_path: Path) -> None:
    crackle = np.tile(np.array([1, -1], np.float32), 50)
    path = record(tmp_path / "clip.wav", speech(2, peak=0.01, rate=8000), crackle, rate=8000)
    faults = clips.faults(clips.inspect(path))
    assert [sentence.split(",")[0] for sentence in faults] == [
        "it is too short",
        "it is too quiet",
        "it is clipped",
        "its sample rate is 8000 Hz",
    ]


def test_a_long_clip_has_a_note_and_no_fault() -> None:
    long = replace(GOOD, seconds=500.0, speech_seconds=400.0)
    assert clips.faults(long) == ()
    assert clips.notes(long) == ("it lasts 500 s, and only its first 10 to 15 s are used",)


def test_a_clip_of_ten_minutes_is_refused() -> None:
    long = replace(GOOD, seconds=clips.MAX_ANALYSED_SECONDS, speech_seconds=500.0)
    assert clips.faults(long) == (
        "it lasts 10 minutes or more, and only its first 10 to 15 s are used: cut it to these",
    )


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "clip.wav").open("wb") as file:
        file.truncate(2 * 2**30)
    with pytest.raises(ClipError, match=r"Larger than 64 MiB; record 10 to 15 s"):
        clips.inspect(tmp_path / "clip.wav")


def test_the_verdict_by_subject() -> None:
    found = {check.subject.value: (check.passed, check.words) for check in clips.checks(GOOD)}
    assert all(passed for passed, _ in found.values())
    assert list(found) == ["length", "level", "noise", "clipping", "sample rate"]
    assert found["sample rate"] == (True, "24000 Hz")


@pytest.mark.parametrize(
    ("measured", "subject"),
    [
        ({"seconds": 2.0, "speech_seconds": 2.0, "used_speech_seconds": 2.0}, "length"),
        ({"level": -50.0}, "level"),
        ({"contrast": 1.0}, "noise"),
        ({"clipped": 0.02}, "clipping"),
        ({"sample_rate": 8000}, "sample rate"),
        ({"cancelled": 20.0}, "channels"),
    ],
)
def test_what_did_not_pass_has_the_fault_and_the_rest_its_measure(measured: dict[str, float], subject: str) -> None:
    clip = replace(GOOD, **measured)  # type: ignore[arg-type]
    failed = [check for check in clips.checks(clip) if not check.passed]
    assert [check.subject.value for check in failed] == [subject]
    assert tuple(check.words for check in failed) == clips.faults(clip)


def test_a_silent_clip_has_no_verdict_on_its_noise() -> None:
    silent = replace(GOOD, level=-inf, speech_seconds=0.0, used_speech_seconds=0.0, contrast=0.0)
    assert "noise" not in [check.subject.value for check in clips.checks(silent)]
