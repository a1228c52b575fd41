"""Keys of cached audio: SHA-256 digests of everything that determines its bytes.

There are two kinds of entries, so that one synthesis serves every format. *PCM* is what a worker returns: it depends on
the engine and its options, the weights, the voice, the text, the parameters and the seed. A *file* is PCM at one speed
in one format.
"""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

from balancer.audio.formats import AudioFormat
from balancer.requests.speech_request import SpeechRequest
from balancer.thread_pool import ThreadPool
from voices.registry import Voice
from worker.checkpoints.fingerprint import digest_of


class CacheKeys:
    """The cache keys of one engine.

    `engine` is its name with the options that change its audio, as `EngineOptions.label` names them. `fingerprint`
    identifies its weights and code. `voices` is the folder of the voices.
    """

    def __init__(self, engine: str, fingerprint: str, voices: Path) -> None:
        self._engine = engine
        self._fingerprint = fingerprint
        self._voices = voices
        self._pool = ThreadPool("clips", 2)
        self._clips: dict[Path, tuple[tuple[int, int], str]] = {}

    async def pcm(self, request: SpeechRequest) -> str:
        """The key of the PCM for a request. All requests without a seed share one key: any seed satisfies them."""
        return digest_of(
            [
                self._engine,
                self._fingerprint,
                request.voice.name,
                await self._clip_digest(request.voice),
                request.text,
                request.parameters,
                request.seed if request.seeded else None,
            ]
        )

    @staticmethod
    def file(pcm_key: str, speed: float, audio_format: AudioFormat) -> str:
        """The key of the file that is encoded from the PCM with key `pcm_key`."""
        return digest_of([pcm_key, speed, audio_format.value])

    async def _clip_digest(self, voice: Voice) -> str | None:
        """SHA-256 of the voice's reference clip, computed again when the file's time or size has changed."""
        if voice.reference is None:
            return None
        path = self._voices / voice.name / voice.reference
        try:
            return await self._pool.run(lambda: self._digest_of_file(path))
        except OSError:
            return "unreadable"  # the worker will fail on it, so no audio is stored under this key

    def _digest_of_file(self, path: Path) -> str:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is no regular file")
        version = (status.st_mtime_ns, status.st_size)
        cached = self._clips.get(path)
        if cached is None or cached[0] != version:
            with path.open("rb") as file:
                self._clips[path] = cached = version, hashlib.file_digest(file, "sha256").hexdigest()
        return cached[1]
