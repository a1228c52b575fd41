"""Has deploy/install, upgrade and uninstall do their work on a bare Debian under a real systemd; prints what it saw.

It needs the network, to install packages. The bare Debian is kept in a cache folder.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated

import httpx
import typer

from balancer.host.processes import free_port
from balancer.runtime.repository import REPOSITORY
from scripts.deployment.bare_root import BootedRoot, RootError, booted, make_root
from scripts.deployment.steady_load import KEY, Tally, bearer, in_flight, speak, steady_load, until
from scripts.deployment.trial import Trial
from scripts.support.check import Check
from scripts.support.console import fail, report_progress, run_command
from scripts.support.markdown import machine, table
from scripts.support.servers import interrupt_on_signals

MAX_EXPOSURE = 2.0
CHECKOUT = "/root/chorus"
PATIENCE_SECONDS = 30
"""Time that the trial's upgrades give a new worker."""
RETURN_SECONDS = 60.0
REQUESTS_AT_STOP = 8
FAULT = "import sys\nif {condition}:\n    raise SystemExit('this release has a fault')"
"""It shows itself only when the program runs, not in the checks before."""
BROKEN_WORKER = ("worker/server.py", FAULT.format(condition="'--index' in sys.argv"))
BROKEN_BALANCER = ("balancer/process.py", FAULT.format(condition="sys.argv[0].endswith('balancer/__main__.py')"))
FAULTY_SETTING = "CHORUS_SLOTS=none"


class SystemdTrial(Trial):
    """The steps on one booted root, and what was seen at each."""

    def __init__(self, host: BootedRoot, port: int) -> None:
        super().__init__()
        self._host = host
        self._url = f"http://127.0.0.1:{port}"
        self._port = port

    def run(self, *, upgrades: bool) -> None:
        """Every step in turn. Raises CalledProcessError where a step cannot be taken."""
        first = (self._install, self._speak, self._security, self._faulty_setting, self._drain)
        second = (self._upgrade, self._broken_worker, self._broken_balancer) if upgrades else ()
        for step in (*first, *second, self._kill, self._stop, self._uninstall):
            self._take(step)

    def _install(self) -> None:
        """Installing."""
        (self._host.root / "etc/chorus.env").write_text(f"CHORUS_PORT={self._port}\n", encoding="ascii")
        begun = time.monotonic()
        self._host.run(f"{CHECKOUT}/deploy/install")
        self._see("deploy/install", f"{time.monotonic() - begun:.0f} s, until it speaks", True)
        status = self._property("StatusText")
        self._see("status line", status, bool(re.match(r"[12] of \d+ workers? ready", status)))

    def _speak(self) -> None:
        """Speaking."""
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            failure = speak(client, "The first words on this host.")
        self._see("speaks when `systemctl start` returns", failure or "yes", failure is None)
        errors = self._host.read("journalctl --unit=chorus --priority=err --output=cat")
        self._see("errors in the journal of a good start", errors or "none", not errors)
        infos = self._host.read("journalctl --unit=chorus --priority=info --output=cat | wc -l")
        self._see("lines of level info", infos, int(infos) > 0)

    def _security(self) -> None:
        """Asking systemd for the exposure."""
        verdict = self._host.read("systemd-analyze security chorus --no-pager | tail -n 1")
        exposure = re.search(r": ([\d.]+)", verdict)
        low = exposure is not None and float(exposure[1]) <= MAX_EXPOSURE
        self._see("systemd-analyze security", verdict.lstrip("→ "), low)

    def _faulty_setting(self) -> None:
        """Starting with a faulty setting, and with a secret as a credential."""
        settings = self._host.root / "etc/chorus.env"
        good = settings.read_text(encoding="ascii")
        settings.write_text(f"{good}{FAULTY_SETTING}\n", encoding="ascii")
        self._host.run("systemctl restart chorus", check=False)
        failed = until(lambda: self._property("ActiveState") == "failed", 10)
        self._see(
            "a faulty setting", f"{self._property('ActiveState')}, {self._property('NRestarts')} restarts", failed
        )
        settings.write_text(good, encoding="ascii")
        secret = self._host.root / "etc/chorus/credentials/api_keys"
        secret.write_text(f"{KEY}\n", encoding="ascii")
        self._host.run("systemctl reset-failed chorus && systemctl restart chorus")
        statuses = [
            httpx.get(f"{self._url}/v1/audio/voices", headers=headers, trust_env=False).status_code
            for headers in ({}, bearer(KEY))
        ]
        self._see("an API key as a credential: without, with", statuses, statuses == [401, 200])
        leaked = self._host.read(f"grep -lz {KEY} /proc/[0-9]*/environ 2>/dev/null || true")
        self._see("processes with the key in their environment", leaked or "none", not leaked)
        secret.unlink()
        self._host.run("systemctl restart chorus")
        self._await_all_workers()

    def _drain(self) -> None:
        """Draining."""
        self._host.run("chorus drain")
        drained = httpx.get(f"{self._url}/ready", trust_env=False).status_code
        shown = until(lambda: "draining" in self._property("StatusText"), 5)
        self._host.run("chorus resume")
        back = httpx.get(f"{self._url}/ready", trust_env=False).status_code
        self._see("/ready while drained, and after", f"{drained}, {back}", (drained, back) == (503, 200) and shown)

    def _upgrade(self) -> None:
        """Upgrading under load."""
        commit = self._commit("README.md", "\nOne more line.\n")
        begun = time.monotonic()
        with steady_load(self._url) as tally:
            self._host.run("/opt/chorus/current/deploy/upgrade")
        seconds = time.monotonic() - begun
        self._see("deploy/upgrade under load", f"{tally.describe()}, {seconds:.0f} s", tally.failed == 0)
        alone = self._come_to_run([commit[:12]])
        self._see("all run the new release", self._releases(), alone)

    def _broken_worker(self) -> None:
        """Upgrading to a release whose worker does not start."""
        self._rolls_back("a worker", *BROKEN_WORKER)

    def _broken_balancer(self) -> None:
        """Upgrading to a release whose balancer does not start."""
        self._rolls_back("the balancer", *BROKEN_BALANCER)

    def _rolls_back(self, part: str, file: str, line: str) -> None:
        before = self._releases()
        self._commit(file, f"\n{line}\n")
        begun = time.monotonic()
        with steady_load(self._url) as tally:
            upgrade = f"CHORUS_UPGRADE_PATIENCE={PATIENCE_SECONDS} /opt/chorus/current/deploy/upgrade"
            done = self._host.run(upgrade, check=False)
        seconds = time.monotonic() - begun
        whole = done.returncode == 1 and tally.failed == 0 and self._come_to_run(before)
        self._see(
            f"an upgrade that breaks {part}",
            f"exit code {done.returncode}, {tally.describe()}, {self._releases()} again after {seconds:.0f} s",
            whole,
        )
        self._host.run(f"git -C {CHECKOUT} reset --quiet --hard HEAD~1")

    def _kill(self) -> None:
        """Killing supervisord, and then the balancer."""
        for name in ("supervisord", "the balancer"):
            pid = self._property("MainPID") if name == "supervisord" else self._balancer()
            begun = time.monotonic()
            self._host.run(f"kill -9 {pid}")
            back = until(lambda: self._speaks() and self._property("ActiveState") == "active", RETURN_SECONDS)
            self._see(f"speaks again after kill -9 of {name}", f"{time.monotonic() - begun:.1f} s", back)
            self._await_all_workers()

    def _stop(self) -> None:
        """Stopping with requests in flight."""
        tally = Tally()
        with in_flight(self._url, REQUESTS_AT_STOP, tally):
            begun = time.monotonic()
            self._host.run("systemctl stop chorus")
            seconds = time.monotonic() - begun
        clean = self._property("Result") == "success"
        self._see(
            "systemctl stop", f"{tally.describe()}, {seconds:.1f} s", tally.answered == REQUESTS_AT_STOP and clean
        )

    def _uninstall(self) -> None:
        """Uninstalling."""
        self._host.run(f"{CHECKOUT}/deploy/uninstall")
        kept = self._host.read(
            "ls -d /etc/chorus* /var/lib/chorus* /opt/chorus* /var/cache/chorus* 2>/dev/null || true"
        )
        self._see("deploy/uninstall keeps", kept.split(), "/opt/chorus" not in kept and "/var/lib/chorus" in kept)
        self._host.run(f"{CHECKOUT}/deploy/uninstall --purge")
        left = self._host.read(
            "find / -xdev -name 'chorus*' -not -path '/root/*' -not -path '/var/log/*'; getent passwd chorus || true"
        )
        self._see("deploy/uninstall --purge keeps", left or "nothing", not left)

    def _commit(self, file: str, text: str) -> str:
        """Commits a line more in a file of the checkout, and returns the commit."""
        path = self._host.root / CHECKOUT.lstrip("/") / file
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
        self._host.run(f"git -C {CHECKOUT} -c user.name=trial -c user.email=trial@localhost commit -qam trial")
        return self._host.read(f"git -C {CHECKOUT} rev-parse HEAD")

    def _come_to_run(self, releases: list[str]) -> bool:
        """Whether all run these before long: the former balancer ends once its busy clients have reconnected."""
        return until(lambda: self._releases() == releases, RETURN_SECONDS)

    def _releases(self) -> list[str]:
        """The releases that workers and balancer run."""
        programs = [words for _, words in self._processes() if {"balancer", "worker"} & set(words[2:3])]
        return sorted({found[1] for words in programs if (found := re.search(r"/releases/(\w+)/", words[0]))})

    def _balancer(self) -> str:
        return next(str(pid) for pid, words in self._processes() if words[1:] == ["-m", "balancer"])

    def _processes(self) -> list[tuple[int, list[str]]]:
        """The processes of the root by their numbers in it, with their command lines."""
        command = "for p in /proc/[0-9]*; do echo ${p#/proc/} $(tr '\\0' ' ' 2>/dev/null <$p/cmdline); done"
        lines = [line.split() for line in self._host.read(command).splitlines()]
        return [(int(pid), words) for pid, *words in lines if words]

    def _property(self, name: str) -> str:
        return self._host.read(f"systemctl show --property={name} --value chorus")

    def _speaks(self) -> bool:
        try:
            return httpx.get(f"{self._url}/ready", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def _await_all_workers(self) -> None:
        until(lambda: bool(re.match(r"(\d+) of \1 ", self._property("StatusText"))), RETURN_SECONDS)


def main(
    *,
    cache: Annotated[Path, typer.Option(help="Folder that keeps the bare Debian, 430 MB.")] = Path(
        "/var/cache/chorus-trials"
    ),
    folder: Annotated[Path | None, typer.Option(help="Folder of the trial; default: a temporary one.")] = None,
    upgrades: Annotated[bool, typer.Option(help="Whether to try upgrades, which take most of the time.")] = True,
) -> None:
    """Install this checkout's HEAD on a bare Debian, use it as an operator does, and print a table.

    Exit code: 0 all held, 1 something did not, 2 wrong usage. It takes up to ten minutes.
    """
    interrupt_on_signals()
    with tempfile.TemporaryDirectory(prefix="chorus-systemd-", dir=folder) as name:
        root, console = Path(name) / "root", Path(name) / "console.log"
        try:
            report_progress("Making a bare Debian")
            make_root(cache, root)
            _clone(root)
            begun = time.monotonic()
            with booted(root, console) as host:
                trial = SystemdTrial(host, free_port())
                try:
                    trial.run(upgrades=upgrades)
                except subprocess.CalledProcessError as error:
                    report_progress(host.run("journalctl --unit=chorus --lines=40 --output=cat", check=False).stdout)
                    trial.checks.append(Check(str(error.cmd[-1]), f"{error}: {error.stderr[-2000:]}", holds=False))
        except (RootError, subprocess.SubprocessError, OSError) as error:
            fail("scripts/try_systemd", error)
    typer.echo(f"{machine()}\n{time.monotonic() - begun:.0f} s\n")
    rows = [(check.name, check.value, "holds" if check.holds else "DOES NOT HOLD") for check in trial.checks]
    typer.echo(table(["what", "seen", ""], rows))
    if not all(check.holds for check in trial.checks):
        raise typer.Exit(1)


def _clone(root: Path) -> None:
    subprocess.run(
        ["git", "clone", "--quiet", "--no-hardlinks", str(REPOSITORY), str(root / CHECKOUT.lstrip("/"))],
        check=True,
        env=os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null"},
    )
    subprocess.run(["git", "-C", str(root / CHECKOUT.lstrip("/")), "remote", "remove", "origin"], check=True)


if __name__ == "__main__":
    run_command(main, "scripts/try_systemd")
