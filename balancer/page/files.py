"""The files of the page, read once and kept in memory: with vendored libraries they are some two hundred kilobytes."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

STATIC = Path(__file__).parent / "static"
INDEX = "index.html"

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""The kinds of files that the page consists of, by suffix; others in the folder are not served."""


@dataclass(frozen=True)
class PageFile:
    """One file of the page."""

    content: bytes
    compressed: bytes
    """The same in gzip."""
    media_type: str
    etag: str
    """Entity tag, in quotes: it changes with the content."""


def read_files(folder: Path = STATIC) -> dict[str, PageFile]:
    """The files in `folder`, by their paths below it, with slashes."""
    return {
        path.relative_to(folder).as_posix(): _read(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in MEDIA_TYPES
    }


def _read(path: Path) -> PageFile:
    content = path.read_bytes()
    # Without the time, so that all hosts and restarts serve the same bytes.
    compressed = gzip.compress(content, mtime=0)
    digest = hashlib.sha256(content).hexdigest()[:32]
    return PageFile(content, compressed, MEDIA_TYPES[path.suffix], f'"{digest}"')
