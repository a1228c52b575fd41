"""A simulated machine for the shell scripts: a repository, and a PATH with a stub in place of python3."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"
TOOLS = [
    *["bash", "cat", "chmod", "cp", "df", "dirname", "env", "find", "flock", "grep", "mkdir", "mv", "paste"],
    *["readlink", "rm", "sed", "sha256sum", "sort", "stat", "tail", "timeout", "touch", "tr"],
]

# The stub of python3 answers the calls of environment.sh, and records them in the file STUB_CALLS. With STUB_GATE, a
# FIFO, an install waits until the other end is opened. With STUB_URLLIB, a real Python, pages are really fetched.
PYTHON = """#!/usr/bin/env bash
case "$*" in
    *_base_executable*) echo "${STUB_VERSION:-3.11} $0" ;;
    *"import venv, ensurepip"*) exit "${STUB_VENV_EXIT:-0}" ;;
    *"-m venv "*)
        dir="${@: -1}"
        mkdir -p "$dir/bin"
        cp "$0" "$dir/bin/python"
        printf '#!/usr/bin/env bash\\nprintf "<%%s>" "$@"\\n' >"$dir/bin/chorus"
        chmod +x "$dir/bin/chorus"
        echo "command = $0 -m venv $dir" >"$dir/pyvenv.cfg"
        echo "venv" >>"$STUB_CALLS" ;;
    *"-m pip install"*" uv") exit "${STUB_NO_UV:-1}" ;;
    *"-m pip config list"*) printf '%b' "${STUB_PIP_CONFIG:-}" ;;
    *"-m uv pip install"*)
        words="$*"
        echo "uv ${words#*unsafe-best-match }" >>"$STUB_CALLS"
        exit "${STUB_UV_EXIT:-0}" ;;
    *"-m pip install"*)
        index=""
        if [[ $* =~ --extra-index-url\\ ([^ ]+) ]]; then index="${BASH_REMATCH[1]}"; fi
        echo "${index:+from $index }${@: -1}" >>"$STUB_CALLS"
        if [[ -n $index && -n ${STUB_INDEX_SAYS:-} ]]; then printf '%b\\n' "$STUB_INDEX_SAYS"; exit 1; fi
        printf '%b\\n' "${STUB_PIP_SAYS:-}"
        if [[ -n ${STUB_GATE:-} ]]; then echo ready >"$STUB_GATE"; cat "$STUB_GATE"; fi
        exit "${STUB_PIP_EXIT:-0}" ;;
    *"-m pip list"*) printf '%b' "${STUB_INSTALLED:-}" ;;
    *"-m pip uninstall"*) if [[ -n ${STUB_INSTALLED:-} ]]; then echo "without ${*: -2}" >>"$STUB_CALLS"; fi ;;
    *urllib.request*) if [[ -n ${STUB_URLLIB:-} ]]; then exec "$STUB_URLLIB" "$@"; else exit 1; fi ;;
    *"print(sys.version)"*) echo "${STUB_BUILD:-3.11.2}" ;;
    *"-c import ${STUB_IMPORT:-numpy}")
        if [[ -n ${STUB_IMPORT_SAYS:-} ]]; then echo "$STUB_IMPORT_SAYS" >&2; exit 1; fi ;;
esac
"""


class Machine:
    """A repository and a PATH of its own, in which the scripts find no Python of the real machine."""

    def __init__(self, home: Path) -> None:
        self.repository = home / "a repository"
        self.venv = self.repository / ".venv"
        self.calls = home / "calls"
        self.serve = self.repository / "scripts" / "serve"
        self.programs = home / "bin"
        self.programs.mkdir()
        (self.repository / "scripts" / "setup").mkdir(parents=True)
        for name in ("setup/environment.sh", "setup/pytorch.sh", "serve"):
            shutil.copy(SCRIPTS / name, self.repository / "scripts" / name)
        (self.repository / "pyproject.toml").write_text("dependencies = []\n")
        (home / "lists").mkdir()
        (home / "lists" / "bookworm_Packages").touch()
        self.lists = home / "lists"
        self.driver = home / "nvidia"
        self.index = ""
        self.urllib = ""
        self.probe_seconds = 60.0
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, f"{tool} is not on this machine"
            (self.programs / tool).symlink_to(found)
        self.program("id", "#!/usr/bin/env bash\necho 1000\n")

    def program(self, name: str, text: str = PYTHON) -> None:
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)

    def environment(self, **stub: str) -> dict[str, str]:
        fixed = {"PATH": str(self.programs), "LC_ALL": "C", "HOSTTYPE": "x86_64"}
        return fixed | {"STUB_CALLS": str(self.calls), "STUB_URLLIB": self.urllib} | stub

    def command(self, *words: str) -> list[str]:
        """The command that runs a function of environment.sh with the system and network that the test provides."""
        settings = {
            "APT_LISTS": self.lists,
            "NVIDIA_DRIVER": self.driver,
            "PYTORCH_CPU_INDEX": self.index,
            "PYTORCH_PROBE_SECONDS": self.probe_seconds,
        }
        assignments = "; ".join(f"{name}={shlex.quote(str(value))}" for name, value in settings.items())
        pythons = "PYTHONS=(python3 python3.11 python3.12 python3.13 python3.14)"
        code = f'set -euo pipefail; source "$1"; shift; {pythons}; {assignments}; "$@"'
        return ["bash", "-c", code, "bash", str(self.repository / "scripts" / "setup" / "environment.sh"), *words]

    def run(self, *words: str, **stub: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env=self.environment(**stub),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def ensure(self, *extras: str, **stub: str) -> subprocess.CompletedProcess[str]:
        return self.run("ensure_environment", *extras, **stub)

    def execute(self, script: Path, /, *words: str, **stub: str) -> subprocess.CompletedProcess[str]:
        """Run a script from another folder; the `chorus` that it starts prints its arguments."""
        return subprocess.run(
            [script, *words],
            cwd="/",
            env=self.environment(**stub),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def start(self, *extras: str, **stub: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            # Tests in the background may ignore SIGINT, and bash cannot trap a signal that it was started to ignore.
            ["env", "--default-signal=INT", *self.command("ensure_environment", *extras)],
            env=self.environment(**stub),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def recorded_calls(self) -> list[str]:
        """The recorded calls of the stub of python3 since the last time."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return lines
