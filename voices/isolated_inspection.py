"""Inspects a clip in a process of its own: a hostile file can neither crash nor hold up whoever has it inspected.

Servers use it for clips that come over the network. `python -m voices.isolated_inspection FILE` prints the result.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from voices import clips, isolated_process
from voices.clips import KINDS, Clip, ClipError

log = logging.getLogger(__name__)

MAX_SECONDS = 60.0
"""Time limit after which the process is killed. Ten minutes of any kind, the longest analysed, take a few seconds."""
MAX_MEMORY_BYTES = 2 * 2**30
"""Address space of the process."""
LOGGED_CHARACTERS = 500


def inspect(path: Path) -> Clip:
    """The same as `clips.inspect`. Blocks for MAX_SECONDS at most; raises ClipError also for a file that takes longer.

    Raises OSError if no process can be started.
    """
    try:
        # numpy's threads would each take address space.
        done = isolated_process.run(__name__, [str(path)], seconds=MAX_SECONDS, variables={"OPENBLAS_NUM_THREADS": "1"})
    except subprocess.TimeoutExpired as error:
        raise ClipError(f"{path} takes more than {MAX_SECONDS:g} s to decode: save it again as wav") from error
    if done.returncode:
        words = done.stderr.decode(errors="replace")[-LOGGED_CHARACTERS:]
        log.warning("the inspection of a clip ended with %d: %s", done.returncode, words)
        raise ClipError(f"{path} cannot be decoded: it must be a whole file of {KINDS}")
    result = json.loads(done.stdout)
    if "error" in result:
        raise ClipError(result["error"])
    return Clip(**result["clip"])


def main() -> None:
    """Inspects the file that is named on the command line, within limits, and prints what is found as JSON."""
    isolated_process.confine(seconds=MAX_SECONDS, memory_bytes=MAX_MEMORY_BYTES)
    try:
        result = {"clip": asdict(clips.inspect(Path(sys.argv[1])))}
    except ClipError as error:
        result = {"error": str(error)}  # type: ignore[dict-item]
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
