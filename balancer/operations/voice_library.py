"""The folder of voices as operators edit it over the network: what `chorus voices` does, in a thread of its own.

A voice that was added can be spoken by every worker once `add` returns; one that was removed is refused once `remove`
does.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import BinaryIO, TypeVar

from balancer import errors
from balancer.requests.voice_form import VoiceForm
from balancer.runtime.thread_pool import PoolFullError, ThreadPool
from voices import clips, isolated_inspection, voice_editor
from voices.clips import Clip, ClipError
from voices.registry import (
    UNKNOWN_NAME_POLL_SECONDS,
    Registry,
    UnknownVoiceError,
    Voice,
    VoiceError,
    VoicesUnavailableError,
)
from voices.voice_editor import VoiceExistsError
from voices.watched_registry import WatchedRegistry

T = TypeVar("T")

MAX_WAITING = 8
"""Requests that may wait while one is worked on."""
RETRY_SECONDS = 10.0
"""Retry-After of a request that was refused for that."""


@dataclass(frozen=True)
class InspectedVoice:
    """A voice, and what its recording is like, if it is cloned from one."""

    voice: Voice
    clip: Clip | None = None
    """None also for a recording that cannot be decoded."""
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class VoiceLibrary:
    """Adds, removes and inspects the voices of `folder`, one at a time; `voices` is the server's view of them.

    `cache` has what workers computed from recordings. Errors are those of the API.
    """

    def __init__(self, folder: Path, cache: Path, voices: WatchedRegistry) -> None:
        self._folder = folder
        self._cache = cache
        self._voices = voices
        self._pool = ThreadPool("voice library", 1, max_waiting=MAX_WAITING)

    async def add(self, form: VoiceForm, recording: BinaryIO) -> InspectedVoice:
        """The voice that was added, completely or not at all.

        Raises ClipRefusedError, VoiceExistsError, InvalidRequestError, VoicesUnavailableError.
        """
        added = await self._run(lambda: self._add(form, recording))
        await self._voices.reload()
        # A worker that has looked at the folder just before looks again after this time, not sooner.
        await asyncio.sleep(2 * UNKNOWN_NAME_POLL_SECONDS)
        return added

    async def remove(self, name: str) -> None:
        """Delete a voice, its recording and what was computed from it.

        Raises VoiceNotFoundError, InvalidRequestError for the voice that a server needs, VoicesUnavailableError.
        """
        await self._run(lambda: self._remove(name))
        await self._voices.reload()

    async def find(self, name: str) -> InspectedVoice:
        """The voice of that name or alias, or whose folder has that name.

        Raises VoiceNotFoundError, VoicesUnavailableError.
        """
        return await self._run(lambda: self._find(name))

    def close(self) -> None:
        """End the thread; does not wait for it."""
        self._pool.close()

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await self._pool.run(work)
        except PoolFullError as error:
            raise errors.VoicesUnavailableError(
                "too many requests for voices are waiting; try again later", retry_after=RETRY_SECONDS
            ) from error

    def _add(self, form: VoiceForm, recording: BinaryIO) -> InspectedVoice:
        with _reporting(), tempfile.TemporaryDirectory(prefix="chorus-clip-") as scratch:
            clip = Path(scratch) / "clip"  # the client's name for it is of no interest: its content says what it is
            with clip.open("xb") as file:
                shutil.copyfileobj(recording, file)
            try:
                measured = isolated_inspection.inspect(clip)
                voice = self._add_measured(form, clip, measured)
            except ClipError as error:
                raise errors.ClipRefusedError(_without_path(error, clip), param="clip") from error
        return InspectedVoice(voice, measured, notes=clips.notes(measured))

    def _add_measured(self, form: VoiceForm, clip: Path, measured: Clip) -> Voice:
        return voice_editor.add(
            self._folder,
            form.name,
            clip,
            consent=form.consent_on(date.today()),
            synthetic=form.synthetic,
            description=form.description,
            language=form.language,
            aliases=form.aliases,
            replace=form.replace,
            cache=self._cache,
            measured=measured,
        )

    def _remove(self, name: str) -> None:
        with _reporting():
            voice_editor.remove(self._folder, name, cache=self._cache)

    def _find(self, name: str) -> InspectedVoice:
        with _reporting():
            registry = Registry.load(self._folder)
            voice = next((voice for voice in registry if voice.folder_name == name), None) or registry.resolve(name)
            return self._inspect(registry, voice)

    def _inspect(self, registry: Registry, voice: Voice) -> InspectedVoice:
        if voice.reference is None:
            return InspectedVoice(voice)
        path = registry.reference(voice)
        try:
            measured = isolated_inspection.inspect(path)
        except ClipError as error:
            return InspectedVoice(voice, faults=(_without_path(error, path),))
        return InspectedVoice(voice, measured, clips.faults(measured), clips.notes(measured))


@contextmanager
def _reporting() -> Iterator[None]:
    """Raises the API's errors in place of those of voices and files."""
    try:
        yield
    except VoiceExistsError as error:
        raise errors.VoiceExistsError(str(error), param="name") from error
    except UnknownVoiceError as error:
        raise errors.VoiceNotFoundError(str(error), param="name") from error
    except (VoicesUnavailableError, OSError) as error:
        raise errors.VoicesUnavailableError(str(error), retry_after=RETRY_SECONDS) from error
    except VoiceError as error:
        raise errors.InvalidRequestError(str(error)) from error


def _without_path(error: ClipError, clip: Path) -> str:
    """The message of an error, which names a file of this host at its beginning."""
    return str(error).replace(str(clip), "the recording")
