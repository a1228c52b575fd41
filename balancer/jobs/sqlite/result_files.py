"""The audio files of finished jobs, in one folder."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from balancer.audio.buffers import AudioBuffer
from balancer.audio.formats import AudioFormat
from balancer.jobs.job import Job


class ResultFiles:
    """Files in `folder`, one for each job that is done. The methods block; they raise OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, job: Job) -> Path:
        """The file with the audio of a job, once it is done."""
        return self._folder / f"{job.id}{job.suffix}"

    def write(self, job: Job, audio: AudioBuffer) -> None:
        """Write the audio durably, so that the job's state may say that it is done."""
        write_durably(self.path(job), audio)

    def delete(self, job: Job) -> None:
        """Delete the audio of a job, if there is any."""
        self.path(job).unlink(missing_ok=True)

    def size(self, job_id: str) -> int:
        """Bytes of the audio of a job, whatever its format; 0 if there is none."""
        for audio_format in AudioFormat:
            with suppress(OSError):
                return (self._folder / f"{job_id}.{audio_format.value}").stat().st_size
        return 0


def write_durably(file: Path, audio: AudioBuffer) -> None:
    """Write a file that is there whole or not at all, even if the power fails. Its folder is made. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as output:
            for piece in audio.pieces():
                output.write(piece)
            output.flush()
            os.fsync(output.fileno())
        temporary.replace(file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
