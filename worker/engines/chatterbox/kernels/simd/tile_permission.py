"""Asks Linux for AMX's tile registers: 8 KiB of state that a process has to request before its first use of them."""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache

_ARCH_PRCTL = 158
"""The system call's number on x86-64."""
_ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 0x1023, 18
"""Linux, Documentation/arch/x86/xstate.rst."""


@cache
def may_use_tiles() -> bool:
    """Request the tile registers for this process and all of its threads; whether Linux grants them.

    A kernel before 5.16 refuses, and so may a sandbox; without the permission, the first use of a tile would kill the
    process.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    request = (ctypes.c_long(number) for number in (_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA))
    return bool(ctypes.CDLL(None).syscall(*request) == 0)
