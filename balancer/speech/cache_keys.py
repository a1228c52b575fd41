"""Keys of cached audio: SHA-256 digests of everything that determines its bytes.

There are two kinds of entries, so that one synthesis serves every format. *PCM* is what a worker returns: it depends on
the engine and its options, the weights, the voice, the text, the parameters and the seed. A *file* is PCM at one speed
in one format. Both may have a namespace for each caller, so that a hit tells nobody what another caller has said.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path

from balancer.audio.formats import AudioFormat
from balancer.requests.speech_request import SpeechRequest
from voices.file_thread import FileThread
from voices.regular_files import MAX_CLIP_BYTES, check_regular_file, read_regular_file
from worker.checkpoints.fingerprint import digest_of


class CacheKeys:
    """The cache keys of one engine.

    `engine` is its name with the options that change its audio, as `EngineOptions.audio_label` names them.
    `fingerprint` identifies its weights and code. `voices` is the folder of the voices. With `per_caller`, callers
    share no entries.
    """

    def __init__(self, engine: str, fingerprint: str, voices: Path, *, per_caller: bool = False) -> None:
        self._engine = engine
        self._fingerprint = fingerprint
        self._voices = voices
        self._per_caller = per_caller
        self._clips: dict[Path, tuple[tuple[int, ...], str]] = {}
        self._files = FileThread("clips")

    async def pcm(self, request: SpeechRequest, caller: str, first_piece_tokens: int | None = None) -> str:
        """The key of the PCM for a request. All requests without a seed share one key: any seed satisfies them.

        So does any first piece; with a seed, `first_piece_tokens`, which decides the samples, gives another key.

        It waits for the folder of voices if the voice has a reference clip, and for nothing else.
        """
        reference = request.voice.reference
        clip = None if reference is None else self._voices / request.voice.folder_name / reference
        return digest_of(
            [
                self._engine,
                self._fingerprint,
                request.voice.name,
                None if clip is None else await self._files.run(self._clip_digest, clip),
                request.text,
                request.parameters,
                request.seed if request.seeded else None,
                *([caller] if self._per_caller else []),
                *([{"first_piece": first_piece_tokens}] if request.seeded and first_piece_tokens else []),
            ]
        )

    @staticmethod
    def file(
        pcm_key: str, speed: float, audio_format: AudioFormat, lengths: Sequence[int], pauses: Sequence[float]
    ) -> str:
        """The key of a file, which is encoded from segments of these lengths in characters, with these pauses.

        `pcm_key` is the key of the PCM for the whole text.
        """
        return digest_of([pcm_key, speed, audio_format.value, [*lengths], [*pauses]])

    def _clip_digest(self, clip: Path) -> str:
        """SHA-256 of a reference clip, computed again when its file has changed."""
        try:
            status = check_regular_file(clip, MAX_CLIP_BYTES)
            version = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
            cached = self._clips.get(clip)
            if cached is None or cached[0] != version:
                content = read_regular_file(clip, MAX_CLIP_BYTES)
                self._clips[clip] = cached = version, hashlib.sha256(content).hexdigest()
        except OSError:
            # The clip is gone, or it was replaced since the last scan of the voices: no other request has this key.
            return secrets.token_hex(16)
        return cached[1]
