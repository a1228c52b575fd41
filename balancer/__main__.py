"""`python -m balancer`: the balancer process, started by supervisord.

Collects no garbage before it serves: see `balancer.process`.
"""

from __future__ import annotations

import gc


def main() -> None:
    """Import and serve, until SIGTERM."""
    gc.disable()
    from balancer.process import serve  # noqa: PLC0415 - what is imported here takes a third longer with collections

    serve()


if __name__ == "__main__":
    main()
