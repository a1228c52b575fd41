"""Keys of audio: digests over everything that changes the sound.

Two steps, so that one synthesis serves every format: a *sound* is what a worker speaks (engine and the way it is run,
weights, voice, text, parameters, seed); a *file* is a sound at one speed in one format.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from balancer.audio.formats import AudioFormat
from balancer.requests.speech_request import SpeechRequest
from voices.registry import Voice
from worker.checkpoints.fingerprint import digest_of


class CacheKeys:
    """The keys for one engine whose weights have that `fingerprint`; `voices` is the folder of the voices' clips.

    `engine` is its name with the way it is run, as `cards.described` has it: each sounds a little different.
    """

    def __init__(self, engine: str, fingerprint: str, voices: Path) -> None:
        self._engine = engine
        self._fingerprint = fingerprint
        self._voices = voices
        self._clips: dict[Path, tuple[tuple[int, int], str]] = {}

    def sound(self, request: SpeechRequest) -> str:
        """What a worker is to speak. A request without a seed is content with any, so it has a key of its own."""
        return digest_of(
            [
                self._engine,
                self._fingerprint,
                request.voice.name,
                self._clip(request.voice),
                request.text,
                request.parameters,
                request.seed if request.seeded else None,
            ]
        )

    @staticmethod
    def file(sound: str, speed: float, audio_format: AudioFormat) -> str:
        """A finished file."""
        return digest_of([sound, speed, audio_format.value])

    def _clip(self, voice: Voice) -> str | None:
        """The digest of the voice's clip, read again when the file has changed."""
        if voice.reference is None:
            return None
        path = self._voices / voice.name / voice.reference
        try:
            status = path.stat()
            seen = (status.st_mtime_ns, status.st_size)
            known = self._clips.get(path)
            if known is None or known[0] != seen:
                self._clips[path] = known = seen, hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            return "unreadable"  # the worker will say so; nothing spoken gets this key
        return known[1]
