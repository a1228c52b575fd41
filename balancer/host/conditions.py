"""The conditions of a measurement, and the base of all that is saved of one as JSON; pure."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """A value that is saved as JSON; a file with other fields is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Conditions(FrozenModel):
    """What was measured, and how: measurements under different conditions are not comparable."""

    def differences(self, other: Self) -> tuple[str, ...]:
        """The names of the conditions that are different in `other`."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) != getattr(other, name))
