"""Chatterbox Turbo with random weights behind the whole server: nothing is mixed, nothing overtakes, nothing chatters.

What it says is noise; that the same is asked and given can be told from the bytes.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import openai
import pytest

from scripts.support.recogniser import audio_seconds
from tests.end_to_end.conftest import MODEL_TIMEOUT, SEED, Chorus, Home, post_tts, run_concurrently, synthesize
from tests.support.harness import wait_until
from tests.support.recordings import record, speech
from voices import voice_editor

CLONED = "clone"
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")
CHATTER = ("PerthNet", "it/s", "s/it", "Sampling", "FutureWarning", "S3 Token", "Traceback")


@pytest.fixture(scope="module", autouse=True)
def cloned_voice(home: Home, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A second voice, there before the server starts."""
    clip = record(tmp_path_factory.mktemp("clips") / "clip.wav", speech(6))
    voice_editor.add(home.voices, CLONED, clip, synthetic=True)


@pytest.fixture(scope="module")
def alone(turbo: Chorus) -> dict[str, bytes]:
    """The audio of either voice, spoken before anything else."""
    return {voice: synthesize(turbo, voice=voice) for voice in ("default", CLONED)}


def done(chorus: Chorus) -> list[int]:
    return [state.done for state in chorus.states()]


@pytest.mark.parametrize("voice", ["default", CLONED])
def test_either_worker_makes_the_same_audio_of_a_seed(turbo: Chorus, alone: dict[str, bytes], voice: str) -> None:
    turbo.await_ready(2)
    before = done(turbo)
    assert run_concurrently(*[partial(synthesize, turbo, voice=voice)] * 2) == [alone[voice]] * 2
    assert done(turbo) == [before[0] + 1, before[1] + 1]


def test_what_else_is_spoken_leaves_no_trace(turbo: Chorus, alone: dict[str, bytes]) -> None:
    asked = [(voice, seed) for seed in (SEED, SEED + 1) for voice in ("default", CLONED)]

    def hear(which: tuple[str, int]) -> bytes:
        voice, seed = which
        return synthesize(turbo, voice=voice, seed=seed)

    with ThreadPoolExecutor(4) as clients:
        heard = list(clients.map(hear, asked))

    for (voice, seed), audio in zip(asked, heard, strict=True):
        assert (audio == alone[voice]) == (seed == SEED)
    assert len(set(heard)) == 4, "two voices times two seeds"
    assert {audio_seconds(audio) for audio in heard} == {audio_seconds(alone["default"])}


def test_each_worker_speaks_one_utterance_and_the_others_wait_in_line(turbo: Chorus) -> None:
    turbo.await_ready(2)
    before = sum(done(turbo))
    deepest = 0
    with ThreadPoolExecutor(6) as clients:
        answers = [clients.submit(post_tts, turbo, "Hi.", seed=seed) for seed in range(6)]
        while not all(answer.done() for answer in answers):
            report = turbo.health()
            deepest = max(deepest, report["queueDepth"])
            assert [worker["in_flight"] for worker in report["workers"] if worker["in_flight"] > 1] == []

    assert deepest == 4
    assert [answer.result().status_code for answer in answers] == [200] * 6
    assert len({answer.result().content for answer in answers}) == 6
    assert turbo.health()["queueDepth"] == 0
    assert sum(done(turbo)) == before + 6


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": 0}, "temperature must be a number from 0.05 to 5"),
        ({"top_p": 1.5}, "top_p must be a number from 0.01 to 1"),
        ({"top_k": 6564}, "top_k must be a whole number from 0 to 6563"),
        ({"top_k": 50.5}, "top_k must be a whole number from 0 to 6563"),
        ({"repetition_penalty": 0.5}, "repetition_penalty must be a number from 1 to 3"),
    ],
)
def test_a_parameter_out_of_range_is_refused_with_the_range(
    turbo: Chorus, parameters: dict[str, float], message: str
) -> None:
    answer = post_tts(turbo, "Hi.", **parameters)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["message"]) == ("invalid_parameter", *parameters, message)


def test_a_parameter_of_another_engine_is_refused_with_those_there_are(turbo: Chorus) -> None:
    answer = post_tts(turbo, "Hi.", exaggeration=0.7)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("unknown_parameter", "exaggeration")
    assert "engine 'turbo': temperature, top_p, top_k, repetition_penalty" in error["message"]


def test_paragraphs_are_segments_of_one_answer(turbo: Chorus) -> None:
    answer = post_tts(turbo, "This is the first paragraph.\n\nThis is the second paragraph.")
    assert answer.headers["x-cache-segments"] == "0/2"
    assert audio_seconds(answer.content) > 8


def test_parameters_are_heard_and_whole_numbers_are_numbers(turbo: Chorus) -> None:
    whole, fraction = run_concurrently(
        partial(synthesize, turbo, temperature=1), partial(synthesize, turbo, temperature=1.0)
    )
    assert whole == fraction
    assert whole != synthesize(turbo, top_k=1)


def test_a_tag_is_taken(turbo: Chorus) -> None:
    assert audio_seconds(synthesize(turbo, "[laugh]")) > 2


def test_openais_client_passes_seed_and_parameters(turbo: Chorus) -> None:
    def create(**extra: object) -> bytes:
        return client.audio.speech.create(
            model="turbo", voice="alloy", input="Hi.", response_format="wav", extra_body=extra
        ).content

    with openai.OpenAI(
        base_url=f"{turbo.url}/v1", api_key="none needed", max_retries=0, timeout=MODEL_TIMEOUT
    ) as client:
        assert client.models.retrieve("turbo").owned_by == "chorus"
        assert create(seed=7, top_k=50) == synthesize(turbo, top_k=50)
        with pytest.raises(openai.BadRequestError, match="top_k must be a whole number from 0 to 6563"):
            create(top_k=-1)


@pytest.mark.usefixtures("alone")
def test_the_log_has_lines_of_ours_only(turbo: Chorus) -> None:
    wait_until(lambda: "POST /tts 200" in turbo.log.read_text())
    log = turbo.log.read_text()
    assert [word for word in CHATTER if word in log] == []
    running = log[log.index("supervisord started") :].partition("\nChorus is ready")
    after = running[2].partition("Ctrl-C stops it.")[2]
    lines = [*running[0].splitlines()[1:], *after.splitlines()]
    assert [line for line in lines if line and not TIMESTAMP.match(line)] == []


@pytest.mark.usefixtures("alone")
def test_nothing_is_written_but_conditionals(home: Home) -> None:
    assert len(home.conditionals()) == 1, "the checkpoint brings those of the voice `default`"
    assert {file for file in home.cache.rglob("*") if file.is_file()} == home.conditionals()
