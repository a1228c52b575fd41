"""ffmpeg plays what curl passes on while it comes, in each format. Arguments: URL of the server, text."""

from __future__ import annotations

import json
import subprocess
import sys
from time import monotonic

import imageio_ffmpeg

FORMATS = ("pcm", "wav", "mp3", "opus", "aac", "flac")
RATE = 24_000
RAW = ("-f", "s16le", "-ar", str(RATE), "-ac", "1")


def main(url: str, text: str) -> None:
    """Print a JSON object for each stream; its first sound is the first that was decoded."""
    for audio_format in FORMATS:
        body = json.dumps({"text": text, "format": audio_format, "stream": True})
        curl = ["curl", "-sfN", f"{url}/tts", "-H", "Content-Type: application/json", "-d", body]
        source = [*(RAW if audio_format == "pcm" else ()), "-i", "pipe:0"]
        player = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *source, *RAW, "-flush_packets", "1", "pipe:1"]
        began, first, size = monotonic(), 0.0, 0
        with (
            subprocess.Popen(curl, stdout=subprocess.PIPE) as asking,
            subprocess.Popen(player, stdin=asking.stdout, stdout=subprocess.PIPE) as playing,
        ):
            assert asking.stdout is not None and playing.stdout is not None  # noqa: S101, PT018
            asking.stdout.close()
            while piece := playing.stdout.read1(2**16):  # type: ignore[attr-defined]
                first = first or monotonic() - began
                size += len(piece)
        case = {"name": audio_format, "first": first, "end": monotonic() - began, "seconds": size / 2 / RATE}
        print(json.dumps(case if not asking.returncode else {"name": audio_format, "error": "curl failed"}))


if __name__ == "__main__":
    main(*sys.argv[1:])
