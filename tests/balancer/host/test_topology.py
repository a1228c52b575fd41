from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from balancer.host.cpu_budget import Core, Host
from balancer.host.layout import plan_layout
from balancer.host.memory_budget import WorkerMemory
from balancer.host.topology import detect_topology
from worker.options import EngineOptions

GIB = 2**30


@dataclass
class FakeRoot:
    """A folder that looks like / of a Linux host."""

    path: Path

    def write(self, name: str, text: object) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def core(self, *cpus: int, package: int = 0, siblings: str = "core_cpus_list") -> None:
        for cpu in cpus:
            topology = f"sys/devices/system/cpu/cpu{cpu}/topology"
            self.write(f"{topology}/{siblings}", ",".join(map(str, cpus)))
            self.write(f"{topology}/physical_package_id", package)

    def node(self, number: int, cpus: str) -> None:
        self.write(f"sys/devices/system/node/node{number}/cpulist", cpus)

    def cgroup(self, *lines: str) -> None:
        self.write("proc/self/cgroup", "\n".join(lines))

    def limits(self, folder: str, **files: object) -> None:
        for name, text in files.items():
            self.write(f"sys/fs/cgroup/{folder}/{name.replace('__', '.')}", text)

    def host(self, allowed: set[int] | None = None, available: int = 32 * GIB) -> Host:
        return detect_topology(self.path, allowed={0, 1} if allowed is None else allowed, available_bytes=available)


@pytest.fixture
def root(tmp_path: Path) -> FakeRoot:
    fake = FakeRoot(tmp_path)
    fake.core(0)
    fake.core(1)
    fake.node(0, "0-1")
    return fake


# Topology


def test_a_host_with_hyper_threads(root: FakeRoot) -> None:
    for cpu in range(8):
        root.core(cpu, cpu + 8)
    root.node(0, "0-15")
    host = root.host(set(range(16)))
    assert host.cores == tuple(Core((cpu, cpu + 8), node=0) for cpu in range(8))
    assert host.allowed == frozenset(range(16))
    assert host.quota is None
    assert host.available_bytes == 32 * GIB


def test_a_host_with_two_sockets(root: FakeRoot) -> None:
    for cpu in range(96):
        root.core(cpu, cpu + 96, package=cpu // 48)
    root.node(0, "0-47,96-143")
    root.node(1, "48-95,144-191")
    host = root.host(set(range(192)))
    assert len(host.cores) == 96
    assert {core.node for core in host.cores if core.cpus[0] < 48} == {0}
    assert {core.node for core in host.cores if core.cpus[0] >= 48} == {1}


def test_nodes_count_more_than_sockets(root: FakeRoot) -> None:
    root.node(0, "0")
    root.node(1, "1")
    assert [core.node for core in root.host().cores] == [0, 1]


def test_a_node_of_memory_alone_has_no_cores(root: FakeRoot) -> None:
    root.node(1, "")
    assert [core.node for core in root.host().cores] == [0, 0]


def test_without_nodes_the_socket_stands_in(tmp_path: Path) -> None:
    fake = FakeRoot(tmp_path)
    fake.core(0, package=0)
    fake.core(1, package=1)
    fake.core(2, package=-1)
    assert [core.node for core in fake.host().cores] == [0, 1, 0]


def test_the_older_name_of_the_siblings(tmp_path: Path) -> None:
    fake = FakeRoot(tmp_path)
    fake.core(0, 1, siblings="thread_siblings_list")
    assert fake.host().cores == (Core((0, 1), node=0),)


def test_cpus_that_are_offline_are_no_cores(root: FakeRoot) -> None:
    (root.path / "sys/devices/system/cpu/cpu2").mkdir()
    (root.path / "sys/devices/system/cpu/cpufreq").mkdir()
    assert [core.cpus for core in root.host().cores] == [(0,), (1,)]


def test_contradictory_siblings_put_no_cpu_into_two_cores(root: FakeRoot) -> None:
    root.write("sys/devices/system/cpu/cpu1/topology/core_cpus_list", "0-1")
    assert [core.cpus for core in root.host().cores] == [(0,)]


def test_without_sys_the_cores_are_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 4 if logical else 2)
    host = detect_topology(tmp_path, allowed={1, 3}, available_bytes=GIB)
    assert host.cores == (Core((0, 2), node=0), Core((1, 3), node=0))


def test_without_anything_there_is_one_core_for_each_allowed_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: None)
    host = detect_topology(tmp_path, allowed={0, 3}, available_bytes=GIB)
    assert host == Host((Core((0,), node=0), Core((3,), node=0)), frozenset({0, 3}), None, GIB)


# CPU quota


def test_a_container_on_cgroup_v2(root: FakeRoot) -> None:
    root.cgroup("0::/")
    root.limits("", cpu__max="300000 100000")
    assert root.host().quota == 3.0


@pytest.mark.parametrize(
    ("own", "slice_", "quota"),
    [
        ("max 100000", "max 100000", None),
        ("150000 100000", "max 100000", 1.5),
        ("max 100000", "250000 100000", 2.5),
        ("400000 100000", "100000 50000", 2.0),
    ],
)
def test_the_tightest_of_the_ancestors_counts(root: FakeRoot, own: str, slice_: str, quota: float | None) -> None:
    root.cgroup("0::/system.slice/chorus.service")
    root.limits("system.slice/chorus.service", cpu__max=own)
    root.limits("system.slice", cpu__max=slice_)
    root.limits("other.slice", cpu__max="1000 100000")
    assert root.host().quota == quota


@pytest.mark.parametrize(("us", "quota"), [("-1", None), ("350000", 3.5)])
def test_a_quota_on_cgroup_v1(root: FakeRoot, us: str, quota: float | None) -> None:
    root.cgroup("4:memory:/docker/abc", "3:cpu,cpuacct:/docker/abc", "1:name=systemd:/docker/abc")
    root.limits("cpu,cpuacct/docker/abc", cpu__cfs_quota_us=us, cpu__cfs_period_us=100000)
    assert root.host().quota == quota


def test_a_container_on_cgroup_v1_sees_its_group_as_the_root(root: FakeRoot) -> None:
    root.cgroup("3:cpu,cpuacct:/docker/abc", "0::/docker/abc")
    root.limits("cpu", cpu__cfs_quota_us=200000, cpu__cfs_period_us=100000)
    assert root.host().quota == 2.0


def test_a_hybrid_host_has_v2_under_unified(root: FakeRoot) -> None:
    root.cgroup("0::/a.slice")
    root.limits("unified/a.slice", cpu__max="50000 100000")
    assert root.host().quota == 0.5


def test_a_path_outside_the_namespace_stays_inside_the_mount(root: FakeRoot) -> None:
    root.cgroup("0::/../../a")
    root.limits("", cpu__max="100000 100000")
    root.limits("a", cpu__max="50000 100000")
    assert root.host().quota == 0.5


# Memory


def test_memory_without_a_limit_is_the_hosts(root: FakeRoot) -> None:
    root.cgroup("0::/a")
    root.limits("a", memory__max="max", memory__current=GIB)
    assert root.host(available=5 * GIB).available_bytes == 5 * GIB


def test_memory_within_a_limit(root: FakeRoot) -> None:
    root.cgroup("0::/a/b")
    root.limits("a/b", memory__max=8 * GIB, memory__current=GIB)
    root.limits("a", memory__max=6 * GIB, memory__current=2 * GIB)
    assert root.host().available_bytes == 4 * GIB
    assert root.host(available=3 * GIB).available_bytes == 3 * GIB


def test_cached_files_are_free(root: FakeRoot) -> None:
    root.cgroup("0::/")
    root.limits("", memory__max=8 * GIB, memory__current=7 * GIB)
    root.limits("", memory__stat=f"anon {GIB}\ninactive_file {4 * GIB}\nactive_file {2 * GIB}\nfile {6 * GIB}")
    assert root.host().available_bytes == 7 * GIB


def test_memory_on_cgroup_v1(root: FakeRoot) -> None:
    root.cgroup("4:memory:/docker/abc")
    root.limits("memory", memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=20 * GIB)
    root.limits("memory/docker/abc", memory__limit_in_bytes=4 * GIB, memory__usage_in_bytes=2 * GIB)
    root.limits("memory/docker/abc", memory__stat=f"inactive_file 5\ntotal_inactive_file {GIB}")
    assert root.host().available_bytes == 3 * GIB


def test_a_group_over_its_limit_has_nothing(root: FakeRoot) -> None:
    root.cgroup("0::/")
    root.limits("", memory__max=GIB, memory__current=2 * GIB)
    assert root.host().available_bytes == 0


# Whatever may be wrong


def test_nonsense_counts_as_no_limit(root: FakeRoot) -> None:
    root.cgroup("0::/", "nonsense", "1:cpu")
    root.limits("", cpu__max="3 0", memory__max="lots", memory__current="", memory__stat="a\nb c\n1 2 3")
    root.node(7, "nonsense")
    host = root.host()
    assert (host.quota, host.available_bytes) == (None, 32 * GIB)
    assert len(host.cores) == 2


def test_unreadable_files_count_as_no_limit(root: FakeRoot) -> None:
    root.cgroup("0::/")
    (root.path / "sys/fs/cgroup/cpu.max").mkdir(parents=True)  # fails to open even for the superuser
    (root.path / "sys/fs/cgroup/memory.max").write_bytes(b"\xff\xfe")
    host = root.host()
    assert (host.quota, host.available_bytes) == (None, 32 * GIB)


def test_this_host_has_a_layout() -> None:
    host = detect_topology()
    assert host.allowed == os.sched_getaffinity(0)
    assert host.available_bytes <= psutil.virtual_memory().total
    assert plan_layout(host, WorkerMemory.of(EngineOptions("hibari", Path("/cache")))).workers


def test_without_affinity_every_cpu_is_allowed(root: FakeRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert detect_topology(root.path).allowed == {0, 1}
