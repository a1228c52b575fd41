"""Keys of cached audio: SHA-256 digests of everything that determines its bytes.

There are two kinds of entries, so that one synthesis serves every format. *PCM* is what a worker returns: it depends on
the engine and its options, the weights, the voice, the text, the parameters and the seed. A *file* is PCM at one speed
in one format.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from balancer.audio.formats import AudioFormat
from balancer.requests.speech_request import SpeechRequest
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
        self._clips: dict[Path, tuple[tuple[int, int], str]] = {}

    def pcm(self, request: SpeechRequest) -> str:
        """The key of the PCM for a request. All requests without a seed share one key: any seed satisfies them."""
        return digest_of(
            [
                self._engine,
                self._fingerprint,
                request.voice.name,
                self._clip_digest(request.voice),
                request.text,
                request.parameters,
                request.seed if request.seeded else None,
            ]
        )

    @staticmethod
    def file(pcm_key: str, speed: float, audio_format: AudioFormat) -> str:
        """The key of the file that is encoded from the PCM with key `pcm_key`."""
        return digest_of([pcm_key, speed, audio_format.value])

    def _clip_digest(self, voice: Voice) -> str | None:
        """SHA-256 of the voice's reference clip, computed again when the file's time or size has changed."""
        if voice.reference is None:
            return None
        path = self._voices / voice.name / voice.reference
        try:
            status = path.stat()
            version = (status.st_mtime_ns, status.st_size)
            cached = self._clips.get(path)
            if cached is None or cached[0] != version:
                self._clips[path] = cached = version, hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            return "unreadable"  # the worker will fail on it, so no audio is stored under this key
        return cached[1]
