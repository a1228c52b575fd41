"""`python -m tests.support.isolated_network COMMAND…`: runs a server without a network, and tells what it sought there.

It runs in network and mount namespaces of its own (`unshare --net --mount`), so that native code is seen as well:
look-ups of names reach a recording name server, and packets to other hosts leave by an interface that counts and drops
them. It awaits `/ready` at PORT, asks for one utterance, ends the server, and prints what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import httpx

from balancer.host.processes import await_ready, running
from tests.support.harness import TIMEOUT, wait_until

RESOLVER = ("127.0.0.1", 53)
ELSEWHERE = ("192.0.2.1", 9)
"""An address of the range for documentation."""

INTERFACE = "outside"


class Resolver:
    """A name server that records the names it is asked for, and answers that there are none."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(RESOLVER)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(4096)
            self.names.append(_name(query[12:]))
            self._socket.sendto(query[:2] + b"\x81\x83" + query[4:6] + bytes(6) + query[12:], client)


def _name(question: bytes) -> str:
    labels = []
    while length := question[0]:
        labels.append(question[1 : 1 + length].decode())
        question = question[1 + length :]
    return ".".join(labels)


def sent_packets() -> int:
    """The number of packets that were sent to other hosts."""
    return int((Path("/sys/class/net") / INTERFACE / "statistics" / "tx_packets").read_text())


def set_up(folder: Path) -> None:
    """Configure the namespaces: the loopback interface, a way to all other hosts, the name server."""
    (folder / "resolv.conf").write_text(f"nameserver {RESOLVER[0]}\noptions timeout:1 attempts:1\n")
    for command in (
        "mount --make-rprivate /",
        "mount -t sysfs sysfs /sys",
        f"mount --bind {folder}/resolv.conf /etc/resolv.conf",
        "ip link set lo up",
        f"ip link add {INTERFACE} type veth peer name nowhere",
        f"ip link set {INTERFACE} addrgenmode none arp off",
        "ip link set nowhere addrgenmode none arp off up",
        f"ip address add 10.255.255.1/24 dev {INTERFACE}",
        f"ip link set {INTERFACE} up",
        f"ip route add default dev {INTERFACE}",
    ):
        subprocess.run(command.split(), check=True)


def main() -> None:
    """Run the server, and print what was seen."""
    port, *command = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="chorus-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        set_up(Path(folder))
        resolver = Resolver()
        seen: dict[str, object] = {"control": _control(resolver)}
        before, asked = sent_packets(), len(resolver.names)
        env = os.environ | {"HOME": str(home)}
        url = f"http://127.0.0.1:{port}"
        with running(command, log=Path(folder) / "log", env=env) as server:
            await_ready(server, lambda: _is_ready(url), timeout=TIMEOUT * 8)
            seen["status"] = [httpx.post(f"{url}/tts", json={"text": "Hello."}, timeout=TIMEOUT * 4).status_code]
            server.terminate()
            server.wait(TIMEOUT * 4)
        seen["names"] = resolver.names[asked:]
        seen["packets"] = [sent_packets() - before]
        seen["home"] = [str(path.relative_to(home)) for path in home.rglob("*")]
    sys.stdout.write(json.dumps(seen))


def _control(resolver: Resolver) -> list[str]:
    """What is seen of a look-up and of a packet: without it, seeing nothing would mean nothing."""
    before = sent_packets()
    with suppress(socket.gaierror):
        socket.getaddrinfo("example.invalid", 80)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"?", ELSEWHERE)
    wait_until(lambda: sent_packets() > before)
    return [resolver.names[0]]


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=TIMEOUT).status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
