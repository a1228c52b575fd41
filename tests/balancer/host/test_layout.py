from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from balancer.cpu_lists import LayoutError, format_cores, parse_cores
from balancer.host.calibration import Measurement
from balancer.host.cpu_budget import Core, Host
from balancer.host.layout import Layout, plan_layout
from balancer.host.memory_budget import WorkerMemory
from worker.options import EngineOptions

GB = 10**9
HIBARI = WorkerMemory.of(EngineOptions("hibari", Path("/cache")))
BIG = WorkerMemory(4_300_000_000)
MAPPED = WorkerMemory(1_600_000_000, 3_000_000_000)
"""Its workers share one copy of the weights."""
BATCHED = WorkerMemory(2 * GB, 3 * GB, GB // 2, 8)
"""Its workers have eight slots, if memory holds them."""


def make_host(
    cores: int,
    *,
    nodes: int = 1,
    hyperthreads: int = 1,
    memory: float = 64 * GB,
    quota: float | None = None,
    allowed: Iterable[int] | None = None,
) -> Host:
    """Number the CPUs as Linux does on x86: the first hyper-threads of all cores, then the second ones."""
    topology = tuple(
        Core(tuple(core + cores * thread for thread in range(hyperthreads)), core * nodes // cores)
        for core in range(cores)
    )
    mask = range(cores * hyperthreads) if allowed is None else allowed
    return Host(topology, frozenset(mask), quota, int(memory))


def c6i_4xlarge(memory: float = 32 * GB, **changes: Any) -> Host:
    return make_host(8, hyperthreads=2, memory=memory, **changes)


def c7i_48xlarge() -> Host:
    return make_host(96, nodes=2, hyperthreads=2, memory=384 * GB)


def threads(layout: Layout) -> list[int]:
    return [layout.threads] * len(layout.workers)


def cpus(layout: Layout) -> list[tuple[int, ...]]:
    return list(layout.workers)


def nodes_of(host: Host, cpus: tuple[int, ...]) -> set[int]:
    return {core.node for core in host.cores if set(core.cpus) & set(cpus)}


@dataclass
class Case:
    host: Host
    threads: list[int]
    reason: str
    memory: WorkerMemory = HIBARI
    requested: dict[str, Any] = field(default_factory=dict)


DEFAULTS = {
    "one core": Case(make_host(1), [1], "shares the workers' cores"),
    "two cores": Case(make_host(2), [1, 1], "shares the workers' cores"),
    "four cores": Case(make_host(4), [1] * 4, "shares the workers' cores"),
    "five cores": Case(make_host(5), [1] * 4, "1 core left to the balancer"),
    "sixteen cores": Case(make_host(16), [1] * 15, "1 core left to the balancer"),
    "small engine on c6i.4xlarge": Case(c6i_4xlarge(), [1] * 8, "workers' second hyper-threads"),
    "big engine on c6i.4xlarge": Case(c6i_4xlarge(), [1] * 7, "Memory holds 7 workers", BIG),
    "big engine on c6i.4xlarge with less free": Case(
        c6i_4xlarge(memory=28 * GB), [1] * 6, "2 cores unused: all workers have the same number of threads", BIG
    ),
    "big engine on c7i.48xlarge": Case(c7i_48xlarge(), [1] * 84, "Memory holds 84 workers", BIG),
    "mapped engine on c6i.4xlarge with less free": Case(
        c6i_4xlarge(memory=11 * GB),
        [2] * 4,
        "Memory holds 4 workers: 1.5 GiB per worker, 2.8 GiB shared, 10.2 GiB available, 0.5 GiB reserved.",
        MAPPED,
    ),
    "mapped engine, memory for one": Case(make_host(4, memory=6.6 * GB), [4], "Memory holds 1 worker:", MAPPED),
    "small engine on c7i.48xlarge": Case(c7i_48xlarge(), [1] * 96, "96 workers of 1 thread"),
    "quota of 3": Case(make_host(16, quota=3), [1, 1], "quota of 3 CPUs covers 2 worker threads"),
    "quota of 2": Case(make_host(16, quota=2), [1], "quota of 2 CPUs covers 1 worker thread "),
    "quota of 8": Case(make_host(16, quota=8), [1] * 7, "as many as the quota allows"),
    "quota of half a CPU": Case(make_host(16, quota=0.5), [1], "a quota of 1.5 would prevent it"),
    "quota with hyper-threads": Case(c6i_4xlarge(quota=3.5), [1, 1, 1], "quota of 3.5 CPUs"),
    "quota of all cores, which have hyper-threads": Case(c6i_4xlarge(quota=8), [1] * 7, "quota of 8 CPUs"),
    "quota of all cores, which have none": Case(make_host(2, quota=2), [1, 1], "shares the workers' cores"),
    "quota above the cores": Case(c6i_4xlarge(quota=12), [1] * 8, "workers' second hyper-threads"),
    "quota and memory": Case(make_host(16, quota=8, memory=16 * GB), [2] * 3, "1 CPU unused", BIG),
    "taskset to three of sixteen cores": Case(
        make_host(16, allowed={4, 5, 6}), [1, 1, 1], "affinity mask allows 3 of 16 physical cores"
    ),
    "taskset to both hyper-threads of two cores": Case(
        c6i_4xlarge(allowed={2, 3, 10, 11}), [1, 1], "workers' second hyper-threads"
    ),
    "taskset to one hyper-thread of each core": Case(
        c6i_4xlarge(allowed=range(8)), [1] * 7, "1 core left to the balancer"
    ),
    "taskset to one hyper-thread of few cores": Case(c6i_4xlarge(allowed={1, 10}), [1, 1], "shares the workers' cores"),
    "memory for one": Case(
        make_host(4, memory=5 * GB),
        [4],
        "Memory holds 1 worker: 4.0 GiB per worker, 4.7 GiB available, 0.5 GiB reserved.",
        BIG,
    ),
}

REQUESTS = {
    "fewer workers": Case(c6i_4xlarge(), [2] * 3, "3 workers, as requested", requested={"workers": 3}),
    "fewer workers without hyper-threads": Case(
        make_host(8), [3, 3], "1 core left to the balancer", requested={"workers": 2}
    ),
    "every core": Case(make_host(8), [1] * 8, "shares the workers' cores", requested={"workers": 8}),
    "more workers than cores": Case(
        make_host(2), [1, 1, 1], "Over-committed: 3 worker threads on 2 physical", requested={"workers": 3}
    ),
    "more workers than the quota holds": Case(
        make_host(8, quota=3), [1] * 4, "a quota of 4.5 would prevent it", requested={"workers": 4}
    ),
    "one worker on two nodes": Case(
        make_host(8, nodes=2, hyperthreads=2), [4], "1 NUMA node without a worker", requested={"workers": 1}
    ),
    "threads": Case(c6i_4xlarge(), [3, 3], "2 workers of 3 threads", requested={"threads": 3}),
    "threads without hyper-threads": Case(make_host(8), [2] * 3, "2 cores left", requested={"threads": 2}),
    "threads within a quota": Case(
        make_host(16, quota=8), [2] * 3, "as many as the quota allows", requested={"threads": 2}
    ),
    "threads and little memory": Case(
        c6i_4xlarge(memory=10 * GB), [2, 2], "Memory holds 2 workers", BIG, {"threads": 2}
    ),
    "more threads than cores": Case(
        make_host(2), [3], "Over-committed: 3 worker threads on 2 physical cores", requested={"threads": 3}
    ),
    "threads that no node has": Case(
        make_host(8, nodes=2, hyperthreads=2), [6], "6 worker threads on 4 physical", requested={"threads": 6}
    ),
    "both": Case(make_host(8), [2] * 4, "shares the workers", requested={"workers": 4, "threads": 2}),
    "both, with room to spare": Case(c6i_4xlarge(), [2, 2], "as requested", requested={"workers": 2, "threads": 2}),
    "both, beyond the cores": Case(
        make_host(4), [4, 4], "8 worker threads on 4 physical", requested={"workers": 2, "threads": 4}
    ),
    "cores": Case(c6i_4xlarge(), [2, 2], "2 workers on the requested CPUs", requested={"cores": ((0, 1, 8), (2, 3))}),
    "different numbers of cores": Case(
        c6i_4xlarge(), [1, 1], "2 cores unused", requested={"cores": ((0, 1, 2, 8), (3, 11))}
    ),
    "cores and threads": Case(
        c6i_4xlarge(), [1, 1], "requested CPUs", requested={"cores": ((0, 1, 8), (2, 10)), "threads": 1, "workers": 2}
    ),
    "hyper-threads of one core as two workers": Case(
        c6i_4xlarge(), [1, 1], "2 worker threads on 1 physical core ", requested={"cores": ((0,), (8,))}
    ),
    "cores of two nodes": Case(
        make_host(8, nodes=2), [2], "1 worker across NUMA nodes, as requested", requested={"cores": ((3, 4),)}
    ),
    "cores under a quota": Case(
        make_host(8, quota=4), [1, 1], "quota of 4 CPUs covers 2", requested={"cores": ((0, 1), (2, 3))}
    ),
    "different numbers of cores under a quota": Case(
        make_host(8, quota=7), [1, 1], "2 CPUs unused", requested={"cores": ((0,), (1, 2, 3))}
    ),
    "cores and threads beyond the quota": Case(
        make_host(8, quota=2), [2, 2], "a quota of 4.5", requested={"cores": ((0, 1), (2, 3)), "threads": 2}
    ),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in (DEFAULTS | REQUESTS).items()])
def test_the_layout(case: Case) -> None:
    layout = plan_layout(case.host, case.memory, **case.requested)
    assert threads(layout) == case.threads
    assert case.reason in " ".join(layout.reasons)


def test_a_worker_may_use_all_hyper_threads_of_its_cores() -> None:
    assert cpus(plan_layout(c6i_4xlarge(), HIBARI)) == [(core, core + 8) for core in range(8)]


def test_an_unused_core_is_added_to_a_worker() -> None:
    layout = plan_layout(c6i_4xlarge(), BIG)
    assert cpus(layout) == [(0, 1, 8, 9), *((core, core + 8) for core in range(2, 8))]


def test_workers_on_two_sockets_are_spread_and_never_span_nodes() -> None:
    host = c7i_48xlarge()
    layout = plan_layout(host, BIG)
    homes = [nodes_of(host, own) for own in layout.workers]
    assert homes == [{0}] * 42 + [{1}] * 42
    assert sum(threads(layout)) == 84


def test_the_balancers_core_is_the_first() -> None:
    assert cpus(plan_layout(make_host(6), HIBARI)) == [(1,), (2,), (3,), (4,), (5,)]


def test_under_a_quota_workers_roam_over_their_share_of_the_cores() -> None:
    assert cpus(plan_layout(make_host(16, quota=3), HIBARI)) == [tuple(range(8)), tuple(range(8, 16))]


def test_a_mask_limits_the_hyper_threads_of_a_core() -> None:
    assert cpus(plan_layout(c6i_4xlarge(allowed={1, 2, 10}), HIBARI)) == [(1,), (2, 10)]


def test_more_workers_than_cores_take_turns() -> None:
    assert cpus(plan_layout(make_host(2), HIBARI, workers=5)) == [(0,), (1,), (0,), (1,), (0,)]


def test_workers_with_fewer_threads_than_cores_leave_the_rest() -> None:
    assert cpus(plan_layout(make_host(8), HIBARI, threads=3)) == [(1, 2, 3), (5, 6, 7)]


@pytest.mark.parametrize(
    ("host", "requested"),
    [
        (c6i_4xlarge(), {}),
        (c6i_4xlarge(), {"workers": 4}),
        (c6i_4xlarge(), {"workers": 9}),
        (c6i_4xlarge(), {"workers": 3, "threads": 1}),
        (c6i_4xlarge(), {"cores": ((0, 1), (2,)), "threads": 1}),
        (c6i_4xlarge(), {"cores": ((0, 1), (2, 3, 10))}),
        (make_host(16, quota=8), {"workers": 7}),
        (make_host(16, quota=3), {"workers": 4}),
    ],
)
def test_no_core_counts_as_unused_if_threads_are_given_or_all_are_used(host: Host, requested: dict[str, Any]) -> None:
    assert "unused" not in " ".join(plan_layout(host, HIBARI, **requested).reasons)


def test_named_cores_are_taken_as_they_are() -> None:
    assert cpus(plan_layout(c6i_4xlarge(), HIBARI, cores=((9, 0), (2,)))) == [(0, 9), (2,)]


@pytest.mark.parametrize(
    ("host", "memory", "requested", "message"),
    [
        (make_host(4, memory=4 * GB), BIG, {}, r"1 worker would need 4\.5 GiB .*3\.7 GiB available.*smaller"),
        (make_host(4, memory=0), HIBARI, {}, r"1 worker would need .* GiB of memory .*0\.0 GiB available"),
        (
            c6i_4xlarge(),
            BIG,
            {"workers": 8},
            r"8 workers would need 33\.5 GiB .*29\.8 GiB.*request at most 7",
        ),
        (make_host(4, memory=6 * GB), BIG, {"cores": ((0,), (1,))}, "request at most 1"),
        (
            make_host(4, memory=11 * GB),
            MAPPED,
            {"workers": 5},
            r"5 workers would need 10\.8 GiB of memory \(1\.5 GiB per worker, 2\.8 GiB shared, .*request at most 4",
        ),
        (make_host(4, memory=2 * GB), MAPPED, {}, r"1 worker would need 4\.8 GiB .*smaller"),
        (make_host(4, allowed={9}), HIBARI, {}, "affinity mask contains none"),
        (make_host(4, allowed={0, 1}), HIBARI, {"cores": ((0,), (2, 3))}, "CPUs 2-3 .*choose among 0-1"),
        (make_host(4), HIBARI, {"cores": ((0,), (64,))}, "CPUs 64 are outside"),
        (make_host(4), HIBARI, {"cores": ((0, 1), (1, 2))}, "CPUs 1 are listed more than once"),
        (make_host(4), HIBARI, {"cores": ((0, 0),)}, "CPUs 0 are listed more than once"),
        (make_host(4), HIBARI, {"cores": ()}, "at least one CPU"),
        (make_host(4), HIBARI, {"cores": ((0,), ())}, "at least one CPU"),
        (
            make_host(4),
            HIBARI,
            {"cores": ((0,), (1,)), "workers": 3},
            "workers is 3 but cores has CPUs for 2",
        ),
        (make_host(4), HIBARI, {"workers": 0}, "workers is 0: it must be at least 1"),
        (make_host(4), HIBARI, {"threads": -1}, "threads is -1: it must be at least 1"),
    ],
)
def test_impossible_requests_are_refused(
    host: Host, memory: WorkerMemory, requested: dict[str, Any], message: str
) -> None:
    with pytest.raises(LayoutError, match=message):
        plan_layout(host, memory, **requested)


# Slots


def slots_of(host: Host, memory: WorkerMemory = BATCHED, **requested: Any) -> tuple[list[int], int, str]:
    """Threads of each worker, slots per worker, and the reason for the slots."""
    layout = plan_layout(host, memory, **requested)
    return threads(layout), layout.slots, layout.reasons[1]


def measurement(threads: int, slots: int, speed: float, *, workers: int = 8) -> Measurement:
    return Measurement(
        threads=threads,
        slots=slots,
        workers=workers,
        utterances=8,
        audio_seconds=speed * 100,
        seconds=100,
        answer_seconds=10,
        worker_bytes=GB,
    )


MEASURED = (measurement(2, 8, 3.0, workers=4), measurement(1, 4, 2.5), measurement(1, 1, 1.0))
"""On eight cores, best first."""


def test_an_engine_without_batching_has_one_slot() -> None:
    assert slots_of(c6i_4xlarge(), HIBARI) == (
        [1] * 8,
        1,
        "1 slot per worker: the engine synthesizes one utterance at a time.",
    )


def test_without_a_calibration_slots_have_their_default() -> None:
    expected = "8 slots per worker, the engine's default: `chorus calibrate` finds the fastest number for this host."
    assert slots_of(c6i_4xlarge(memory=64 * GB)) == ([1] * 8, 8, expected)


def test_little_memory_reduces_slots_before_workers() -> None:
    found, slots, reason = slots_of(c6i_4xlarge(memory=32 * GB))
    assert (found, slots) == ([1] * 8, 2)
    assert reason == (
        "Memory holds 2 slots per worker instead of the engine's default, 8: 1.9 GiB per worker and 0.5 GiB per slot, "
        "2.8 GiB shared, 29.8 GiB available, 1.5 GiB reserved."
    )


def test_too_little_memory_for_one_slot_each_reduces_workers() -> None:
    found, slots, _ = slots_of(c6i_4xlarge(memory=16 * GB))
    assert (found, slots) == ([2] * 4, 2)


def test_requested_slots_reduce_workers_instead() -> None:
    assert slots_of(c6i_4xlarge(memory=32 * GB), slots=8) == ([2] * 4, 8, "8 slots per worker, as requested.")


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ({"slots": 60}, r"1 worker of 60 slots would need 34\.1 GiB .*0\.5 GiB per slot.*: request at most 50 slots"),
        (
            {"slots": 8, "workers": 5},
            r"5 workers of 8 slots would need .*: request at most 6 slots or at most 4 workers",
        ),
        ({"workers": 12}, r"12 workers of 1 slot would need .*: request at most 10 workers"),
        ({"slots": 0}, "slots is 0: it must be at least 1"),
    ],
)
def test_too_little_memory_for_the_request(requested: dict[str, Any], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        plan_layout(c6i_4xlarge(memory=32 * GB), BATCHED, **requested)


def test_a_calibration_decides_on_threads_and_slots() -> None:
    found, slots, reason = slots_of(c6i_4xlarge(memory=64 * GB), measured=MEASURED)
    assert (found, slots) == ([2] * 4, 8)
    assert reason == (
        "8 slots per worker, from this host's calibration: 4 workers of 2 threads and 8 slots: "
        "3 audio seconds per second."
    )


def test_measured_configurations_that_exceed_memory_are_skipped() -> None:
    assert slots_of(c6i_4xlarge(memory=36 * GB), measured=(measurement(1, 4, 4.0), *MEASURED))[:2] == ([2] * 4, 8)
    assert slots_of(c6i_4xlarge(memory=16 * GB), measured=MEASURED[:1])[1] == 2
    assert "Memory holds" in slots_of(c6i_4xlarge(memory=16 * GB), measured=MEASURED[:1])[2]


def test_the_request_takes_precedence_over_the_calibration() -> None:
    host = c6i_4xlarge(memory=64 * GB)
    assert slots_of(host, measured=MEASURED, threads=1)[:2] == ([1] * 8, 4)
    assert slots_of(host, measured=MEASURED, slots=1)[:2] == ([1] * 8, 1)
    assert slots_of(host, measured=MEASURED, slots=3)[2] == "3 slots per worker, as requested."
    assert slots_of(host, measured=MEASURED, threads=4)[:2] == ([4] * 2, 8)
    assert "default" in slots_of(host, measured=MEASURED, threads=4)[2]


@pytest.mark.parametrize("requested", [{"workers": 8}, {"cores": ((0,), (1,))}])
def test_requested_workers_get_the_slots_measured_for_their_threads(requested: dict[str, Any]) -> None:
    found, slots, reason = slots_of(c6i_4xlarge(memory=64 * GB), measured=MEASURED, **requested)
    assert (set(found), slots) == ({1}, 4)
    assert "calibration" in reason


# Properties

no_deadline = settings(deadline=None)  # a busy machine is no defect of the layout


@st.composite
def hosts(draw: st.DrawFn) -> Host:
    cores = draw(st.integers(1, 24))
    hyperthreads = draw(st.integers(1, 2))
    host = make_host(
        cores,
        nodes=draw(st.integers(1, min(3, cores))),
        hyperthreads=hyperthreads,
        memory=draw(st.integers(5 * GB, 200 * GB)),
        quota=draw(st.none() | st.floats(0.1, 30)),
    )
    mask = draw(st.sets(st.integers(0, cores * hyperthreads - 1), min_size=1))
    return Host(host.cores, frozenset(mask), host.quota, host.available_bytes)


slots_alone = st.tuples(st.just(0), st.just(1))
several_slots = st.tuples(st.integers(1, GB), st.integers(1, 16))
worker_memories = st.builds(
    lambda each, shared, several: WorkerMemory(each, shared, *several),
    st.integers(GB // 10, 3 * GB),
    st.just(0) | st.integers(1, GB),
    slots_alone | several_slots,
)
counts = st.none() | st.integers(1, 8)


def assert_sound(host: Host, layout: Layout) -> None:
    """Check the properties of every layout whose CPUs were not given."""
    assert layout.workers
    assert layout.threads >= 1
    for own in layout.workers:
        assert set(own) <= host.allowed
        assert len(nodes_of(host, own)) == 1
        assert list(own) == sorted(set(own))
        own_cores = [core for core in host.cores if not set(own).isdisjoint(core.cpus)]
        assert set(own) == host.allowed.intersection(cpu for core in own_cores for cpu in core.cpus)
    used = [cpu for own in layout.workers for cpu in own]
    over_committed = any("Over-committed" in reason for reason in layout.reasons)
    assert over_committed or len(used) == len(set(used))


def fit(host: Host, memory: WorkerMemory, workers: int, slots: int = 1) -> bool:
    """Whether memory holds the workers with their slots beside the reserve."""
    free = host.available_bytes - max(2**29, 0.05 * host.available_bytes)
    return workers * (memory.private_bytes + slots * memory.slot_bytes) + memory.shared_bytes <= free


def usable_cores(host: Host) -> int:
    return sum(not host.allowed.isdisjoint(core.cpus) for core in host.cores)


@no_deadline
@given(hosts(), worker_memories)
def test_any_default_layout_is_sound(host: Host, memory: WorkerMemory) -> None:
    assume(fit(host, memory, 1))
    layout = plan_layout(host, memory)
    assert_sound(host, layout)
    assert layout == plan_layout(host, memory)
    total = sum(threads(layout))
    assert total <= usable_cores(host)
    if host.quota is not None and host.quota < usable_cores(host):
        assert total <= max(1, host.quota - 0.5)
    assert fit(host, memory, len(layout.workers), layout.slots)
    assert 1 <= layout.slots <= memory.default_slots
    assert layout.slots == memory.default_slots or not fit(host, memory, len(layout.workers), layout.slots + 1)
    assert not any("Over-committed" in reason for reason in layout.reasons)
    if layout.reasons[0].startswith("Memory holds"):
        assert not fit(host, memory, len(layout.workers) + 1)


@no_deadline
@given(hosts(), worker_memories)
def test_groups_within_a_node_differ_by_at_most_one_core(host: Host, memory: WorkerMemory) -> None:
    assume(fit(host, memory, 1))
    sizes: dict[int, list[int]] = {}
    for own in plan_layout(host, memory).workers:
        (node,) = nodes_of(host, own)
        sizes.setdefault(node, []).append(sum(not set(own).isdisjoint(core.cpus) for core in host.cores))
    assert all(max(group) - min(group) <= 1 for group in sizes.values())


@no_deadline
@given(hosts(), worker_memories, st.integers(1, 8))
def test_the_worker_with_the_fewest_cores_decides_the_threads(host: Host, memory: WorkerMemory, workers: int) -> None:
    assume(fit(host, memory, workers))
    layout = plan_layout(Host(host.cores, host.allowed, None, host.available_bytes), memory, workers=workers)
    sizes = [sum(not set(own).isdisjoint(core.cpus) for core in host.cores) for own in cpus(layout)]
    assert set(threads(layout)) == {min(sizes)}
    spare = sum(size - min(sizes) for size in sizes)
    unused = [reason.split(" ", 1)[0] for reason in layout.reasons if "unused" in reason]
    assert unused == ([str(spare)] if spare else [])


@no_deadline
@given(hosts(), worker_memories, counts, counts)
def test_a_request_is_granted_or_refused(
    host: Host, memory: WorkerMemory, workers: int | None, threads_each: int | None
) -> None:
    if not fit(host, memory, workers or 1):
        with pytest.raises(LayoutError, match=r"request at most \d+ worker|free memory or run a smaller engine"):
            plan_layout(host, memory, workers=workers, threads=threads_each)
        return
    layout = plan_layout(host, memory, workers=workers, threads=threads_each)
    assert_sound(host, layout)
    assert workers is None or len(layout.workers) == workers
    assert threads_each is None or set(threads(layout)) == {threads_each}


@no_deadline
@given(hosts(), worker_memories)
def test_the_cpus_of_a_layout_result_in_the_same_layout(host: Host, memory: WorkerMemory) -> None:
    assume(fit(host, memory, 1))
    chosen = plan_layout(host, memory)
    again = plan_layout(host, memory, cores=chosen.workers)
    assert (again.workers, again.threads) == (chosen.workers, chosen.threads)


# Text


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("0", ((0,),)),
        ("0-1,16;2-3,17", ((0, 1, 16), (2, 3, 17))),
        ("1,0;3", ((1, 0), (3,))),
        ("0-2,4-5,9", ((0, 1, 2, 4, 5, 9),)),
    ],
)
def test_cores_as_text(text: str, groups: tuple[tuple[int, ...], ...]) -> None:
    assert parse_cores(text) == groups
    assert format_cores(groups) == text


def test_spaces_are_allowed() -> None:
    assert parse_cores(" 0-1 , 4 ; 2 ") == ((0, 1, 4), (2,))


@pytest.mark.parametrize("text", ["", ";", "0;", "0,,1", "a", "-1", "3-1", "0-", "1.5", "0-1-2", "0-9999999", "٣"])
def test_bad_text_is_refused(text: str) -> None:
    with pytest.raises(LayoutError, match="write CPUs like 0-1,16"):
        parse_cores(text)


@no_deadline
@given(st.lists(st.lists(st.integers(0, 999), min_size=1).map(tuple), min_size=1).map(tuple))
def test_text_and_groups_are_inverse(groups: tuple[tuple[int, ...], ...]) -> None:
    assert parse_cores(format_cores(groups)) == groups
