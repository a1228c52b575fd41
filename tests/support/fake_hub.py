"""A model hub on this host: what huggingface_hub asks of the real one, and the ways in which that may fail.

    with FakeHub({"ve.safetensors": weights}) as hub:
        subprocess.run([CHORUS, "models", "download", "turbo"], env=environment() | hub.variables(tmp_path))

It has every repository and every commit that it is asked for, each with the same files.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

LARGE = 1024
"""Bytes from which on a file is stored by its SHA-256, as the hub's large files are, smaller ones by git's SHA-1."""
MAIN = "f" * 40
"""The commit that the branch `main` is at."""


class FakeHub:
    """A hub with the same files in every repository."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.refusal: tuple[HTTPStatus, str] | None = None
        """The status and error code of every answer; None: it works."""
        self.page: bytes | None = None
        """What every answer is instead: the page of a network that asks its guests to log in."""
        self.cut: dict[str, int] = {}
        """How often the connection breaks in the middle of each file."""
        self.held: str = ""
        """The file that stops in the middle until `release` is set."""
        self.halfway = threading.Event()
        self.release = threading.Event()
        self.fetched: list[tuple[str, str]] = []
        """Every file sent, with the range that was asked for."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def variables(self, home: Path) -> dict[str, str]:
        """What makes a process use this hub, with its cache below `home`."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def checksum(content: bytes) -> str:
    """What the hub, and its cache, name a file's content by."""
    return hashlib.sha256(content).hexdigest() if len(content) >= LARGE else _git_sha1(content)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def do_GET(self) -> None:
        self._answer(send=True)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def _answer(self, *, send: bool) -> None:
        path = self.path.partition("?")[0]
        if self.hub.page is not None:
            self._send(self.hub.page, {"Content-Type": "text/html"}, send=send)
        elif self.hub.refusal is not None:
            status, code = self.hub.refusal
            self._refuse(status, code, send=send)
        elif match := re.fullmatch(r"/api/models/[^/]+/[^/]+/tree/[^/]+", path):
            self._send(json.dumps([_entry(*file) for file in self.hub.files.items()]).encode(), {}, send=send)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            if match[2] == "main":
                self._send(json.dumps({"id": match[1], "sha": MAIN}).encode(), {}, send=send)
            else:
                self._refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound", send=send)
        elif (match := re.fullmatch(r"/[^/]+/[^/]+/resolve/([^/]+)/([^/]+)", path)) and match[2] in self.hub.files:
            self._send_file(match[2], commit=match[1], send=send)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound", send=send)

    def _send_file(self, name: str, *, commit: str, send: bool) -> None:
        content = self.hub.files[name]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{checksum(content)}"', "Accept-Ranges": "bytes"}
        if not send:
            self._send(content, headers, send=False)
            return
        wanted = self.headers.get("Range", "")
        self.hub.fetched.append((name, wanted))
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        half = start + (len(content) - start) // 2
        self._start(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK, len(content) - start, headers)
        self.wfile.write(content[start:half])
        if self.hub.cut.get(name, 0):
            self.hub.cut[name] -= 1
            self.close_connection = True
            return
        if name == self.hub.held:
            self.hub.halfway.set()
            self.hub.release.wait()
        with suppress(ConnectionError):  # whoever was held back may be gone
            self.wfile.write(content[half:])

    def _refuse(self, status: HTTPStatus, code: str, *, send: bool) -> None:
        self._send(b"{}", {"X-Error-Code": code} if code else {}, send=send, status=status)

    def _send(self, body: bytes, headers: dict[str, str], *, send: bool, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._start(status, len(body), headers)
        if send:
            self.wfile.write(body)

    def _start(self, status: HTTPStatus, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _entry(name: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": _git_sha1(content)}
    if len(content) >= LARGE:
        entry["lfs"] = {"oid": checksum(content), "size": len(content), "pointerSize": 134}
    return entry


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
