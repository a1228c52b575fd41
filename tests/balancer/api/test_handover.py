"""The utterance that a worker receives for a request over HTTP: nothing in it is lost or changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.harness import Server, serve_stub
from worker.contract import Utterance

SURFACES = {
    "/tts": {"text": "Hello."},
    "/tts-json": {"text": "Hello."},
    "/v1/audio/speech": {"input": "Hello.", "model": "tts-1", "voice": "alloy"},
}

TEXTS = (
    "  So.\r\n\r\n(clear throat)\t ",
    "<speak>5 < 6 &amp; \"quoted\" 'so' \\ 100 % {name} ${HOME}</speak>",
    "Cafe\u0301 \u2026 \u201cna\u00efve\u201d \ufb01t \u00a0\u200b\u2028 \U0001f600 \u4f60\u597d",
)
"""Markup, white space, and characters that Unicode normalisation would change."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub(engine="multilingual") as server:
        yield server


def utterance_for(server: Server, path: str, **fields: Any) -> Utterance:
    """The utterance that the worker receives for a request with these fields."""
    server.client.post(path, json=SURFACES[path] | fields).raise_for_status()
    return server.stub.last_utterance()


@pytest.mark.parametrize("path", SURFACES)
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_is_not_normalized_reaches_the_worker_as_it_is(server: Server, path: str, text: str) -> None:
    field = "input" if "input" in SURFACES[path] else "text"
    received = utterance_for(server, path, **{field: text}, normalize=False).text
    assert received == text.replace("\r\n", "\n").replace("\u2028", "\n")


@pytest.mark.parametrize("path", SURFACES)
def test_a_text_is_normalized_on_every_surface(server: Server, path: str) -> None:
    field = "input" if "input" in SURFACES[path] else "text"
    assert utterance_for(server, path, **{field: "## It costs **-$5**\n\n[laugh] OK?"}).text == (
        "It costs minus five dollars.\n\nOkay?"
    )


@pytest.mark.parametrize("normalize", [True, False])
def test_no_control_syntax_of_an_engine_reaches_the_worker(server: Server, normalize: bool) -> None:
    text = "A [cat](/d\u0252\u0261/) sat. [STOP] <|endoftext|> [en] [[START]] Off."
    received = utterance_for(server, "/tts", text=text, normalize=normalize).text
    assert not set("[]|<>") & set(received)
    assert "STOP" not in received


@pytest.mark.parametrize("path", SURFACES)
def test_parameters_have_the_types_that_the_engine_expects(server: Server, path: str) -> None:
    fields = {"temperature": 1, "cfg_weight": 0, "exaggeration": 0.7, "language": "PT-br", "seed": 7}
    utterance = utterance_for(server, path, **fields)
    expected = {"temperature": 1.0, "cfg_weight": 0.0, "exaggeration": 0.7, "language": "pt"}
    assert utterance.parameters == expected
    assert {name: type(value) for name, value in utterance.parameters.items()} == {
        name: type(value) for name, value in expected.items()
    }
    assert (utterance.seed, utterance.voice) == (7, "default")


def test_the_language_is_always_sent(server: Server) -> None:
    assert utterance_for(server, "/tts").parameters == {"language": "en"}


def test_a_text_too_long_for_one_utterance_reaches_the_worker_in_several(server: Server) -> None:
    before = server.stub.state().done
    assert utterance_for(server, "/tts", text="word " * 121 + "end").text.endswith("word end")
    assert server.stub.state().done == before + 3
