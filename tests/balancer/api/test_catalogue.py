"""`GET /capabilities` and `POST /segments`, with a real balancer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Message

from balancer.access.admission import Admission
from balancer.access.api_keys import ApiKey, Role, digest_of, write_keys
from balancer.access.rate_limits import UNLIMITED, RateLimits
from balancer.api.catalogue import CatalogueRoutes
from balancer.api.models.catalogue import EngineParameter
from balancer.api.responses import json_object
from balancer.audio.held_audio import Budget
from balancer.dispatch.host_state import HostState
from balancer.errors import QueueFullError
from balancer.metrics import Metrics
from balancer.requests.validation import MAX_LOOP_CHARACTERS, RequestValidator
from balancer.settings.base import MIB
from balancer.settings.limits import LimitSettings
from balancer.settings.speech import PauseSettings
from tests.support.harness import ROOT, TIMEOUT, Server, serve_stub
from voices.registry import Registry
from worker.cards import CARDS, Choice, Parameter

SHOP, OPS, MUTE = "the-key-of-the-shop", "the-key-of-an-operator", "the-key-without-a-voice"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub() as server:
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    keys = [
        ApiKey(name="shop", digest=digest_of(SHOP), requests_per_minute=1),
        ApiKey(name="ops", digest=digest_of(OPS), role=Role.OPERATOR),
        ApiKey(name="mute", digest=digest_of(MUTE), voices=("nobody",)),
    ]
    write_keys(file, keys)
    with serve_stub(keys_file=file) as server:
        yield server


def ask(server: Server, text: str, key: str | None = None, **fields: Any) -> httpx.Response:
    headers = {} if key is None else {"X-API-Key": key}
    return server.client.post("/segments", json={"text": text} | fields, headers=headers)


def segments(server: Server, text: str, **fields: Any) -> list[dict[str, Any]]:
    response = ask(server, text, **fields)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["segments"]
    return found


def test_what_the_server_can_do(server: Server) -> None:
    found = server.client.get("/capabilities").json()
    assert found == {
        "engine": "hibari",
        "description": CARDS["hibari"].description,
        "sampleRate": 24_000,
        "parameters": [],
        "tags": [],
        "clonesVoices": False,
        "formats": ["mp3", "opus", "aac", "flac", "wav", "pcm"],
        "maxTextCharacters": 5000,
        "maxJobTextCharacters": 200_000,
        "role": None,
    }


@pytest.mark.parametrize(("key", "role"), [(SHOP, "client"), (OPS, "operator")])
def test_a_caller_learns_the_role_of_the_key(guarded: Server, key: str, role: str) -> None:
    assert guarded.client.get("/capabilities", headers={"X-API-Key": key}).json()["role"] == role


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS.keys())
def test_every_parameter_of_every_engine_can_be_shown(card: Any) -> None:
    for parameter in card.parameters:
        shown = EngineParameter.of(parameter)
        assert json_object(shown).keys() == EngineParameter.model_fields.keys(), "none is left out"
        assert (shown.name, shown.description) == (parameter.name, parameter.description)
        match parameter:
            case Choice():
                assert (shown.choices, shown.minimum) == (list(parameter.choices), None)
            case Parameter():
                assert (shown.minimum, shown.maximum) == (parameter.minimum, parameter.maximum)
                assert (shown.default, shown.integer, shown.choices) == (parameter.default, parameter.integer, [])


def test_segments_are_what_is_said_with_the_pauses_behind(server: Server) -> None:
    found = segments(
        server, "It costs $5, **Dr. Smith**. [pause 2s] Come on Nov. 3rd, or not at all.\n\nBye, everybody."
    )
    assert [segment["text"] for segment in found] == [
        "It costs five dollars, Doctor Smith.",
        "Come on November third, or not at all.",
        "Bye, everybody.",
    ]
    assert [segment["pauseSeconds"] for segment in found] == [2.0, 0.7, 0.0]


def test_without_normalization_a_text_is_as_it_is(server: Server) -> None:
    (segment,) = segments(server, "It costs $5", normalize=False)
    assert segment["text"] == "It costs $5"


def test_the_first_segment_of_a_stream_is_short(server: Server) -> None:
    text = "The ferry leaves the harbour at dawn, " * 5 + "and returns before the evening tide."
    (whole,) = segments(server, text)
    assert len(segments(server, text, stream=True)) == 2
    assert whole["text"] == text


def test_long_texts_are_split_too(server: Server) -> None:
    text = "Nobody answered the telephone in the morning. " * 100
    response = ask(server, text).json()
    assert response["characters"] == len(text)
    assert "".join(segment["text"] for segment in response["segments"]).replace(" ", "") == text.replace(" ", "")
    assert response["seconds"] > 60


def test_the_expected_length_follows_the_speed(server: Server) -> None:
    slow, fast = (ask(server, "Nobody answered the telephone.", speed=speed).json()["seconds"] for speed in (0.5, 1))
    assert slow == pytest.approx(2 * fast, abs=0.02)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"text": ""}, "invalid_value"),
        ({"text": "x" * 5001}, "text_too_long"),
        ({"text": "Hi.", "voice": "nobody"}, "voice_not_found"),
        ({"text": "Hi.", "volume": 3}, "unknown_parameter"),
    ],
)
def test_what_speech_would_refuse_is_refused(server: Server, body: dict[str, Any], code: str) -> None:
    refused, spoken = (server.client.post(path, json=body) for path in ("/segments", "/tts"))
    assert refused.status_code == spoken.status_code == 400
    assert refused.json() == spoken.json()
    assert code in (refused.json()["error"]["code"], "invalid_value")


def test_a_key_hears_of_its_own_voices_only(guarded: Server) -> None:
    assert ask(guarded, "Hi.", MUTE).status_code == 403


def test_no_rate_limit_counts_it(guarded: Server) -> None:
    for _ in range(5):
        response = ask(guarded, "Hi.", SHOP)
        assert response.status_code == 200
        assert "RateLimit-Remaining" not in response.headers


async def test_past_the_limit_of_waiting_texts_a_long_one_is_refused() -> None:
    async def receive() -> Message:
        body = b'{"text": "%s"}' % (b"a " * MAX_LOOP_CHARACTERS)
        return {"type": "http.request", "body": body, "more_body": False}

    limits = LimitSettings()
    routes = CatalogueRoutes(
        RequestValidator(CARDS["hibari"], Registry.load(ROOT / "voices"), max_characters=limits.max_text_characters),
        Admission(RateLimits(), UNLIMITED, Metrics("hibari"), timeout=TIMEOUT),
        cast(HostState, None),
        Budget(MIB, 1.0),
        limits,
        PauseSettings(),
    )
    routes.close()  # no thread takes work any more, as if it were busy and as many calls waited as may
    headers, client = [(b"content-type", b"application/json")], ("192.0.2.1", 1)
    with pytest.raises(QueueFullError) as refused:
        await routes.segments(Request({"type": "http", "headers": headers, "client": client, "state": {}}, receive))
    assert refused.value.message == "too many long texts are being split; try again later"
    assert refused.value.retry_after
