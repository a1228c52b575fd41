"""`python -m worker`: one worker process, as supervisord starts it.

Confines itself to its CPUs first and imports everything else after that, numpy included.
"""

from __future__ import annotations

import gc
import os
import sys

from worker.cpu_affinity import AffinityError, confine
from worker.crash_history import CrashHistory
from worker.descriptors import close_inherited
from worker.logs import configure
from worker.options import WorkerOptions

NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
"""Variables by which libraries of the engines refrain from reporting to their makers, and from writing the identity
under which they do so into HOME. They read them when they load."""


def main() -> None:
    """Read the command line, confine the process, serve until SIGTERM."""
    # Imports and the model make a million objects, none of them garbage. `serve` resumes the collections.
    gc.disable()
    close_inherited()
    os.environ.update(NO_TELEMETRY)
    options = WorkerOptions.from_argv(sys.argv[1:])
    history = CrashHistory(options.run_dir, options.index)
    try:
        confine(options.cpus, options.engine.threads)
    except AffinityError as error:
        sys.exit(f"worker {options.index}: {error}")
    # After the limits, too: the log is written by a thread.
    configure(f"worker-{options.index}", level=options.log_level, log_format=options.log_format)
    from worker.server import serve  # noqa: PLC0415 - numerical libraries load here, after the limits

    serve(options, history)


if __name__ == "__main__":
    main()
