"""What the groups of settings have in common: their base, and the type of a path."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict

DAY_SECONDS = 86_400.0
MIB = 2**20


def stand_in_home() -> Path | None:
    """Returns a folder in the temporary directory for a user without a home directory; None if there is a home.

    Containers often run under a user id that has no entry in the password file.
    """
    try:
        Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"chorus-{os.getuid()}-home"
    return None


def _make_absolute(path: Path) -> Path:
    if path.parts[:1] == ("~",) and (home := stand_in_home()) is not None:
        return home.joinpath(*path.parts[1:])
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError("the home directory of that user is unknown; write the path in full") from error


AbsolutePath = Annotated[Path, AfterValidator(_make_absolute)]
"""A path of which `~` and the current directory have been resolved."""


class SettingsGroup(BaseModel):
    """Base of the groups. Sizes are in bytes and times in seconds, unless a name says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    title: ClassVar[str]
    """Heading of the group's table."""
