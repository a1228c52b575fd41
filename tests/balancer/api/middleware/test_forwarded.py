"""Addresses that trusted proxies tell, with a real balancer."""

from __future__ import annotations

from tests.support.harness import serve_stub, wait_until


def test_the_caller_is_an_address_whatever_the_header_says() -> None:
    with serve_stub(trusted_proxies="127.0.0.0/8") as server:

        def caller(forwarded_for: bytes) -> str:
            known = server.log.read_text().count(" caller=")
            headers = {b"X-Forwarded-For": forwarded_for}
            assert server.client.post("/tts", json={"text": "Hi."}, headers=headers).status_code == 200
            wait_until(lambda: server.log.read_text().count(" caller=") > known)
            return server.log.read_text().rpartition(" caller=")[2].split()[0]

        assert caller(b"203.0.113.5") == "203.0.113.5"
        assert caller(b"203.0.113.5:4711, 127.0.0.2") == "203.0.113.5"
        assert caller(b"[2001:db8::1]:443") == "2001:db8::1"
        for odd in (b"\x9b31mEVIL\x85line", b"unknown", b"a=b c", b"203.0.113.5, x"):
            assert caller(odd) == "127.0.0.1"
