"""The page at `/` and its files, as a balancer serves them."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import httpx
import pytest

from balancer.page.files import STATIC
from tests.support.harness import Server, await_banner, serve_stub


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve_stub() as server:
        yield server


def plain(server: Server, path: str, **headers: str) -> httpx.Response:
    return server.client.get(path, headers={"Accept-Encoding": "identity"} | headers)


def test_the_page_is_at_the_root(server: Server) -> None:
    response = plain(server, "/")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.content == (STATIC / "index.html").read_bytes()
    assert "Content-Encoding" not in response.headers


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/style/base.css", "/page/icon.svg", "/page/none.js"])
def test_nothing_from_elsewhere_is_allowed(server: Server, path: str) -> None:
    response = plain(server, path)
    if response.status_code == 404:
        assert response.json()["error"]["code"] == "not_found"
        return
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "media-src": "'self' blob:",
        "img-src": "'self' data:",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("main.js", "text/javascript"), ("style/base.css", "text/css"), ("icon.svg", "image/svg+xml")],
)
def test_files_have_their_types(server: Server, path: str, media_type: str) -> None:
    assert plain(server, f"/page/{path}").headers["Content-Type"].partition(";")[0] == media_type


def test_a_browser_gets_gzip(server: Server) -> None:
    with server.client.stream("GET", "/page/main.js", headers={"Accept-Encoding": "gzip, deflate, br"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert response.headers["Vary"] == "Accept-Encoding"
        assert gzip.decompress(b"".join(response.iter_raw())) == (STATIC / "main.js").read_bytes()


def test_what_the_browser_has_is_not_sent_again(server: Server) -> None:
    etag = plain(server, "/").headers["ETag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        response = plain(server, "/", **{"If-None-Match": known})
        assert (response.status_code, response.content, response.headers["ETag"]) == (304, b"", etag)
    assert plain(server, "/", **{"If-None-Match": '"other"'}).status_code == 200


def test_head(server: Server) -> None:
    response = server.client.head("/", headers={"Accept-Encoding": "identity"})
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["Content-Length"]) == (STATIC / "index.html").stat().st_size


@pytest.mark.parametrize(
    "name", ["", "none.js", "../files.py", "..%2Ffiles.py", "%2e%2e/files.py", "vendor/uplot.sha256", "%00", "a" * 1000]
)
def test_what_is_no_file_of_the_page_is_not_found(server: Server, name: str) -> None:
    response = server.client.get(f"/page/{name}")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


def test_the_page_is_read_only(server: Server) -> None:
    assert server.client.post("/", content=b"x").status_code == 405
    assert server.client.delete("/page/main.js").status_code == 405


def test_another_name_of_the_server_is_refused(server: Server) -> None:
    assert plain(server, "/", Host="rebound.example").status_code == 421


def test_it_can_be_turned_off() -> None:
    with serve_stub(page="false", api_keys="a-key-0123456789") as server:
        await_banner(server)
        assert "in a browser" not in server.log.read_text()
        assert server.client.get("/").status_code == 401
        key = {"X-API-Key": "a-key-0123456789"}
        assert server.client.get("/page/main.js", headers=key).status_code == 404
        response = server.client.get("/", headers=key)
        assert (response.status_code, response.headers["Location"]) == (307, "docs")
