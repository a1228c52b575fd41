"""Reads a document in a process of its own: a hostile file can neither crash nor hold up whoever has it read.

The libraries that read documents are loaded in that process alone. `python -m balancer.documents.isolated_reading FILE
TYPE NAME MAX_CHARACTERS` prints the document as JSON.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from balancer.documents.document import KINDS, DocumentError, DocumentType
from voices import isolated_process

log = logging.getLogger(__name__)

MAX_SECONDS = 30.0
"""Time limit after which the process is killed. A novel takes one second."""
MAX_MEMORY_BYTES = 2**30
"""Address space of the process."""
LOGGED_CHARACTERS = 500

REFUSED = 65
"""The exit code for a document that cannot be read (EX_DATAERR of sysexits.h)."""


def read(path: Path, kind: DocumentType, *, name: str = "", max_characters: int) -> bytes:
    """The document as a JSON object, in UTF-8, with the fields of Document. Blocks for MAX_SECONDS at most.

    Raises DocumentError, OSError if no process can be started.
    """
    try:
        done = isolated_process.run(
            __name__,
            [str(path), kind.value, name, str(max_characters)],
            seconds=MAX_SECONDS,
            variables={"PYTHONUTF8": "1"},
        )
    except subprocess.TimeoutExpired as error:
        raise DocumentError(f"it takes more than {MAX_SECONDS:g} s to read: send it in parts") from error
    if done.returncode == REFUSED:
        raise DocumentError(done.stdout.decode(errors="replace"))
    if done.returncode:
        words = done.stderr.decode(errors="replace")[-LOGGED_CHARACTERS:]
        log.warning("the reading of a document ended with %d: %s", done.returncode, words)
        raise DocumentError(f"it cannot be read: it must be a whole file of {KINDS}")
    return done.stdout


def main() -> None:
    """Read the file that is named on the command line, within limits, and print the document, or why it is refused."""
    isolated_process.confine(seconds=MAX_SECONDS, memory_bytes=MAX_MEMORY_BYTES)
    from balancer.documents import reading  # noqa: PLC0415 - only this process is to load what it needs

    path, kind, name, max_characters = sys.argv[1:]
    try:
        document = reading.read(
            Path(path).read_bytes(), DocumentType(kind), name=name, max_characters=int(max_characters)
        )
    except DocumentError as error:
        sys.stdout.write(str(error))
        sys.exit(REFUSED)
    sys.stdout.buffer.write(json.dumps(asdict(document), ensure_ascii=False).encode(errors="replace"))


if __name__ == "__main__":
    main()
