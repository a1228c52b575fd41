"""All attacks, by kind, in the order in which they are run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scripts.attacks import connections, encoders, messages, readers
from scripts.attacks.attack import Attack

ATTACKS: Mapping[str, Sequence[Attack]] = {
    "connections": connections.ATTACKS,
    "messages": messages.ATTACKS,
    "readers": readers.ATTACKS,
    "encoders": encoders.ATTACKS,
}
