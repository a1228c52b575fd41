"""Outages of Redis, at the start and later, over HTTP: speech goes on, and no accepted job is lost."""

from __future__ import annotations

import tempfile
from pathlib import Path

from scripts.support.redis_server import RedisServer
from tests.support.harness import Server, serve_stub, wait_until


def tts(server: Server, text: str = "Hello.") -> int:
    return server.client.post("/tts", json={"text": text}).status_code


def queued(server: Server, text: str = "Hello.") -> bool:
    answer = server.client.post("/queue", json={"text": text})
    if answer.status_code == 202:
        return True
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "jobs_unavailable"
    assert int(answer.headers["retry-after"]) >= 1
    return False


def test_redis_unavailable_at_the_start_and_available_later() -> None:
    with tempfile.TemporaryDirectory(prefix="chorus-redis-") as folder:
        redis = RedisServer(Path(folder), durable=True)
        with serve_stub(redis_url=redis.url, cache_mib=64, rate_requests_per_minute=1000) as server:
            assert tts(server) == 200
            assert not queued(server)
            assert server.client.get("/status/x").status_code == 503
            assert server.client.get("/ready").status_code == 200
            redis.start()
            try:
                wait_until(lambda: queued(server))
                wait_until(lambda: server.client.post("/tts", json={"text": "Hello."}).headers["x-cache"] == "hit")
            finally:
                redis.kill()


def test_redis_unavailable_while_accepted_jobs_wait() -> None:
    with tempfile.TemporaryDirectory(prefix="chorus-redis-") as folder:
        redis = RedisServer(Path(folder), durable=True)
        redis.start()
        try:
            with serve_stub(redis_url=redis.url, cache_mib=64) as server:
                jobs = [server.client.post("/queue", json={"text": text}).json() for text in ("slow", "One.", "Two.")]
                wait_until(lambda: bool(server.stub.state().in_flight))
                redis.kill()
                assert not queued(server)
                (server.stub.path.parent / "go").touch()
                assert tts(server, "Spoken without Redis.") == 200
                redis.start()
                for job in jobs:
                    wait_until(lambda: server.client.get(job["statusUrl"]).status_code == 200)  # noqa: B023
                    wait_until(lambda: server.client.get(job["statusUrl"]).json()["ready"])  # noqa: B023
                    assert server.client.get(f"/audio/{job['requestId']}").content[:4] == b"RIFF"
        finally:
            redis.kill()


def test_requests_are_refused_without_redis_if_limits_are_set_so() -> None:
    with tempfile.TemporaryDirectory(prefix="chorus-redis-") as folder:
        redis = RedisServer(Path(folder), durable=True)
        settings = {"redis_url": redis.url, "rate_requests_per_minute": 1000, "rate_without_redis": "closed"}
        with serve_stub(**settings) as server:
            refused = server.client.post("/tts", json={"text": "Hello."})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "limits_unavailable")
            assert server.client.get("/health").status_code == 200
            redis.start()
            try:
                wait_until(lambda: tts(server) == 200)
            finally:
                redis.kill()
