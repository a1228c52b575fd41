"""What clients of OpenAI's API and of its other servers send and call, beside what the API's own documents say."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.harness import Server, serve_stub

SPEECH = "/v1/audio/speech"
BODY = {"model": "tts-1", "input": "Hello.", "voice": "alloy"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub() as server:
        yield server


@pytest.mark.parametrize(
    "fields",
    [
        {"instructions": "calm"},
        {"instructions": None},
        {"speed": None, "seed": None, "response_format": None},
        {"stream_format": "sse"},
        {"response_format": "MP3"},
        {"voice": {"id": "alloy"}},
        {"voice": None},
        {"model": None},
        {"model": "gpt-4o-mini-tts-2025-12-15"},
    ],
)
def test_a_body_that_clients_send(server: Server, fields: dict[str, object]) -> None:
    response = server.client.post(SPEECH, json=BODY | fields)
    assert response.status_code == 200, response.text
    assert "X-Ignored-Fields" not in response.headers


@pytest.mark.parametrize(
    "fields",
    [{"user": "ada"}, {"lang_code": "a", "volume_multiplier": 1.0}, {"download_format": "mp3"}, {"exaggeration": 0.5}],
)
def test_fields_of_other_servers_are_left_out_and_named(server: Server, fields: dict[str, object]) -> None:
    response = server.client.post(SPEECH, json=BODY | fields)
    assert response.status_code == 200, response.text
    assert response.headers["X-Ignored-Fields"] == ", ".join(fields)
    response = server.client.post("/tts", json={"text": "Hello."} | fields)
    assert response.json()["error"]["code"] == "unknown_parameter", "this server's own endpoint has no foreign clients"


@pytest.mark.parametrize("audio_format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_a_text_that_says_nothing_is_silence(server: Server, audio_format: str) -> None:
    before = server.stub.state().done
    response = server.client.post(SPEECH, json=BODY | {"input": ".", "response_format": audio_format})
    assert (response.status_code, response.headers["X-Audio-Seconds"]) == (200, "0.200")
    assert response.content
    events = server.client.post(SPEECH, json=BODY | {"input": "?!", "stream_format": "sse"})
    assert "speech.audio.done" in events.text
    assert server.stub.state().done == before, "no worker has a part in it"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"voice": "nobody"}, "voice_not_found"),
        ({"model": "gpt-5"}, "model_not_found"),
        ({"input": " "}, "invalid_request"),
    ],
)
def test_a_text_that_says_nothing_is_checked_like_others(server: Server, fields: dict[str, object], code: str) -> None:
    assert server.client.post(SPEECH, json=BODY | {"input": "."} | fields).json()["error"]["code"] == code


def test_a_misspelt_field_is_refused(server: Server) -> None:
    assert server.client.post(SPEECH, json=BODY | {"sped": 2}).json()["error"]["code"] == "unknown_parameter"


def test_the_pickers_of_voices_and_models(server: Server) -> None:
    voices = server.client.get("/audio/voices").json()["voices"]
    assert {"id": "default", "name": "default"} in voices
    assert {"id": "alloy", "name": "alloy"} in voices
    for voice in voices:
        assert server.client.post(SPEECH, json=BODY | {"voice": voice["id"]}).status_code == 200
    models = server.client.get("/v1/audio/models").json()["models"]
    assert {"id": "tts-1"} in models


@pytest.mark.parametrize("path", ["/audio/speech", "/v1/audio/speech/"])
def test_other_paths_count_as_the_one_that_is_meant(server: Server, path: str) -> None:
    assert server.client.post(path, json=BODY).status_code == 200
    assert f'surface="{path}"' not in server.client.get("/metrics").text


def test_a_server_is_alive_without_a_worker_and_without_a_key() -> None:
    with serve_stub(api_keys="a-key-of-the-environment") as server:
        server.stub.process.kill()
        response = server.client.get("/livez")
        assert (response.status_code, response.json()) == (200, {"alive": True})


def test_generators_of_clients_find_names_and_the_type_of_the_audio(server: Server) -> None:
    paths = server.client.get("/openapi.json").json()["paths"]
    names = [operation["operationId"] for operations in paths.values() for operation in operations.values()]
    assert len(set(names)) == len(names)
    assert "post_v1_audio_speech" in names
    content = paths[SPEECH]["post"]["responses"]["200"]["content"]
    assert content["audio/mpeg"] == {"schema": {"type": "string", "format": "binary"}}
