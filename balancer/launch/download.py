"""Downloads a checkpoint from the Hugging Face hub, for `chorus models download` and before a start of `chorus serve`.

The hub's library does the work and shows its progress on a terminal. Its errors are translated here, once.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
from rich.filesize import decimal

from worker.checkpoints.catalogue import (
    SEGMENTER,
    Checkpoint,
    DownloadError,
    FileState,
    Part,
    find,
    how_to_install,
    hub_cache,
    locate,
    verify,
)


def download(checkpoint: Checkpoint, *, revision: str | None, announce: Callable[[str], object]) -> Path:
    """Download the missing and damaged files of a revision into the hub's cache, and return their folder.

    `announce` is called with what is downloaded, and its size, before the download starts. Existing files are read to
    their end first, and downloaded again if they are damaged. Raises CheckpointError, mostly DownloadError.
    """
    if present := locate(checkpoint, revision=revision):
        with _translating(checkpoint, checkpoint.repository, revision or checkpoint.revision):
            _discard_damaged(checkpoint, present)
    own = checkpoint.own
    folder = _fetch(checkpoint, replace(own, revision=revision or own.revision), announce)
    if checkpoint.borrowed is not None:
        lender = _fetch(checkpoint, checkpoint.borrowed, announce)
        for name in checkpoint.borrowed.files:
            _link(folder / name, lender / name)
    return find(checkpoint, model_dir=folder, revision=revision)


def _fetch(checkpoint: Checkpoint, part: Part, announce: Callable[[str], object]) -> Path:
    """Download the missing files of a part of a checkpoint, and return their folder. Raises DownloadError."""
    cache, repository, files = hub_cache(), part.repository, list(part.files)
    with _translating(checkpoint, repository, part.revision):
        from huggingface_hub import hf_hub_download, snapshot_download  # noqa: PLC0415 - comes with an extra

        with _without_bars():
            plan = snapshot_download(
                repository, revision=part.revision, cache_dir=cache, allow_patterns=files, dry_run=True
            )
        pending = sorted((file for file in plan if file.will_download), key=lambda file: file.file_size or 0)
        if pending:
            size = sum(file.file_size or 0 for file in pending)
            _check_room(cache, size)
            announce(f"downloading {checkpoint.engine}'s weights ({decimal(size)}) from the hub, once, into {cache}")
        for file in pending:
            # One by one, in this thread: the threads in which the hub's library downloads a snapshot ignore Ctrl-C.
            hf_hub_download(repository, file.filename, revision=file.commit_hash, cache_dir=cache)
        with _without_bars():  # nothing is left to download; this records the commit that a branch points to
            folder = Path(snapshot_download(repository, revision=part.revision, cache_dir=cache, allow_patterns=files))
    missing = [name for name in files if name not in checkpoint.optional and not (folder / name).exists()]
    if missing:
        raise DownloadError(f"{repository} at revision {part.revision} has no {', '.join(missing)}")
    return folder


def _link(link: Path, file: Path) -> None:
    """Have `link` lead to the content of `file`, another repository's in the cache, if that is there."""
    link.unlink(missing_ok=True)
    if file.exists():
        # The blob's own name is that of its content, which tells whether it is whole.
        content = file.parent / file.readlink() if file.is_symlink() else file
        link.symlink_to(os.path.relpath(content, link.parent))


def download_segmenter(*, announce: Callable[[str], object]) -> None:
    """Download the model that segments Chinese text into words, unless it is there. Raises DownloadError."""
    try:
        from spacy_pkuseg import config  # noqa: PLC0415 - comes with an extra
        from spacy_pkuseg.download import download_model  # noqa: PLC0415 - see above

        home = Path(config.pkuseg_home)
        if not (home / SEGMENTER).is_dir():
            announce(f"downloading the model that segments Chinese text into words into {home}")
            download_model(config.model_urls[SEGMENTER], str(home), config.model_hash[SEGMENTER])
    except ImportError as error:
        raise DownloadError(f"spacy-pkuseg is not installed; {how_to_install('multilingual')}") from error
    except (OSError, RuntimeError) as error:  # the errors of requests are OSErrors
        raise DownloadError(f"cannot download the model that segments Chinese text into words: {error}") from error


@contextmanager
def _without_bars() -> Iterator[None]:
    from huggingface_hub.utils.tqdm import (  # noqa: PLC0415 - see above
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():  # by the operator
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _discard_damaged(checkpoint: Checkpoint, folder: Path) -> None:
    """Remove damaged files from the cache, which the hub's library would take for complete."""
    for report in verify(checkpoint, folder):
        if report.state is not FileState.DAMAGED:
            continue
        path = folder / report.name
        while path.is_symlink():  # to the blob, which may be a link to one that repositories share
            target = path.parent / path.readlink()
            path.unlink()
            path = target
        path.unlink(missing_ok=True)


def _check_room(cache: Path, size: int) -> None:
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise OSError(errno.ENOSPC, f"{decimal(size)} are needed, {decimal(free)} are free")


@contextmanager
def _translating(checkpoint: Checkpoint, repository: str, revision: str) -> Iterator[None]:
    """Translate all errors of the hub's library into DownloadError."""
    try:
        yield
    except ImportError as error:
        raise DownloadError(
            f"downloading {checkpoint.engine}'s weights needs huggingface_hub, which is not installed; "
            + how_to_install(checkpoint.engine)
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError, ValueError) as error:
        what = f"{checkpoint.engine}'s weights ({repository} at revision {revision})"
        raise DownloadError(f"cannot download {what}: {_reason(_cause(error), repository)}") from error


def _cause(error: Exception) -> BaseException:
    from huggingface_hub.errors import DryRunError, LocalEntryNotFoundError  # noqa: PLC0415 - see above

    if isinstance(error, DryRunError | LocalEntryNotFoundError):
        return error.__cause__ or error  # these only say that the file is not in the cache either
    return error


def _reason(error: BaseException, repository: str) -> str:
    from huggingface_hub import errors  # noqa: PLC0415 - see above

    page = f"{os.environ.get('HF_ENDPOINT') or 'https://huggingface.co'}/{repository}"
    match error:
        case errors.GatedRepoError():
            reason = f"the hub requires a login: accept the terms at {page} and set HF_TOKEN"
        case errors.RepositoryNotFoundError():
            reason = f"the hub has no {page}, or it is private: set HF_TOKEN"
        case errors.RevisionNotFoundError():
            reason = "the repository has no such revision"
        case errors.OfflineModeIsEnabled():
            reason = "HF_HUB_OFFLINE forbids downloads: unset it, or copy the hub's cache from another host"
        case errors.HfHubHTTPError(response=httpx.Response(status_code=401 | 403)):
            reason = f"the hub denies access to {page}: check HF_TOKEN"
        case errors.HfHubHTTPError():
            reason = f"the hub answered {error.response.status_code}; try again later"
        case httpx.HTTPError() | httpx.InvalidURL():
            reason = f"no answer from {page} ({error}); is this host online? Downloaded files are kept: try again"
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            reason = f"the disk of {hub_cache()} is full ({error.strerror}): free space, or set HF_HOME to another one"
        case OSError(strerror=str()):
            reason = f"{error.strerror}: {error.filename}"
        case _:
            reason = f"the hub's answer could not be used ({error})"
    return reason
