"""The environment of the workers: what their interpreter and libraries read, and none of the server's secrets.

Workers speak texts of strangers in large native libraries; keys, passwords and tokens are none of their business. What
they need to know of Chorus stands on their command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

KEPT = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TZ|TZDIR|LANG|LANGUAGE|LC_\w+|TMPDIR|TEMP|TMP|VIRTUAL_ENV"
    r"|HF_HOME|HF_HUB_(CACHE|OFFLINE|DISABLE_\w+)|PKUSEG_HOME|TORCH_HOME|XDG_\w+_(HOME|DIR|DIRS)"
    r"|(LD|PYTHON|MALLOC|GLIBC|OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|NUMBA|NUMEXPR|ORT|ONNX|DNNL|ONEDNN|ATEN|TORCHINDUCTOR)"
    r"_?\w+"
)
"""Variables that workers keep; everything else is taken from them."""

SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY", re.IGNORECASE)
"""Part of a name that is never kept."""


def unset_arguments(names: Iterable[str]) -> list[str]:
    """Returns the arguments with which `env` takes variables from a worker, given the names of all."""
    dropped = sorted(name for name in names if not KEPT.fullmatch(name) or SECRET.search(name))
    return [argument for name in dropped for argument in ("-u", name)]
