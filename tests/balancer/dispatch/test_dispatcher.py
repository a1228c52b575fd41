"""The dispatcher and the fleet, in this process, with stub workers that are real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from balancer.dispatch.attempt import AttemptTimeouts
from balancer.dispatch.early_audio import EarlyAudio
from balancer.dispatch.retry_policy import MIN_RESERVE
from balancer.errors import (
    DeadlineUnreachableError,
    InvalidRequestError,
    NotServingError,
    PoisonedError,
    QueueFullError,
    SynthesisError,
)
from balancer.fleet.fleet import STARTING_FACTOR, WorkerPhase
from balancer.fleet.worker_client import WorkerClient
from balancer.scheduling.queued_utterance import Terms
from tests.support.dispatcher import AUDIO_BYTES, READY, RunningDispatcher, running_dispatcher, start_stubs
from tests.support.harness import TIMEOUT, start_stub
from tests.support.unix_server import unix_server
from tests.support.worker_state import worker_state
from worker.contract import SAMPLE_BYTES, EndOfUtterance, FrameKind, Phase, Utterance, encode_frame

TOO_SHORT = AttemptTimeouts(seconds=1.0, factor=1.0)
SHORT = AttemptTimeouts(seconds=3.0, factor=1.0)
"""Long enough for an attempt at a short text on a busy machine."""
HASTY_PROBES = 1.0
EARLY_HEDGE = AttemptTimeouts(hedge_factor=1.0)


async def test_an_utterance_is_synthesized(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 1, processes)
        async with running_dispatcher(run_dir) as chorus:
            assert await chorus.synthesize("Hello.") == bytes(AUDIO_BYTES)
            assert chorus.scheduler.running == 0
            assert chorus.count("chorus_retries_total") == 0


async def test_an_utterance_is_retried_when_its_worker_dies(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 2, processes)
        async with running_dispatcher(run_dir) as chorus:
            await chorus.until_phases(READY, READY)
            assert await chorus.synthesize("die once") == bytes(AUDIO_BYTES)
            assert chorus.count("chorus_retries_total") == 1
            assert chorus.count("chorus_workers_lost_total") == 1
            assert sorted(chorus.phases()) == [WorkerPhase.GONE, READY]
            assert chorus.scheduler.running == 0


async def test_a_retry_waits_for_the_next_process_of_the_only_worker(run_dir: Path) -> None:
    with ExitStack() as processes:
        (first,) = start_stubs(run_dir, 1, processes)
        async with running_dispatcher(run_dir) as chorus:
            await chorus.until_phases(READY)
            synthesis = asyncio.create_task(chorus.synthesize("die once"))
            await chorus.until_phases(WorkerPhase.GONE)
            await asyncio.to_thread(first.process.wait, TIMEOUT)  # its socket may listen until it has ended
            start_stubs(run_dir, 1, processes)
            assert await synthesis == bytes(AUDIO_BYTES)


async def test_an_utterance_that_kills_two_workers_is_not_given_to_a_third(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 3, processes)
        async with running_dispatcher(run_dir) as chorus:
            await chorus.until_phases(READY, READY, READY)
            with pytest.raises(PoisonedError, match="crashed or timed out on utterance poison;"):
                await chorus.synthesize("die", "poison")
            assert sorted(chorus.phases()) == [WorkerPhase.GONE, WorkerPhase.GONE, READY]
            assert await chorus.synthesize("The third one lives.") == bytes(AUDIO_BYTES)


async def test_workers_that_were_dead_before_do_not_poison(run_dir: Path) -> None:
    with ExitStack() as processes:
        dead = [processes.enter_context(start_stub(run_dir, index, audio_bytes=AUDIO_BYTES)) for index in range(3)]
        async with running_dispatcher(run_dir) as chorus:
            await chorus.until_phases(READY, READY, READY)
            for stub in dead:
                stub.process.kill()
                stub.process.wait()
            synthesis = asyncio.create_task(chorus.synthesize("Hello."))
            await chorus.until_phases(WorkerPhase.GONE, WorkerPhase.GONE, WorkerPhase.GONE)
            start_stubs(run_dir, 1, processes)
            assert await synthesis == bytes(AUDIO_BYTES)


async def test_a_truncated_body_is_never_taken_for_the_whole(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 2, processes)
        async with running_dispatcher(run_dir) as chorus:
            await chorus.until_phases(READY, READY)
            with pytest.raises(PoisonedError):
                await chorus.synthesize("truncate")
            await chorus.until_phases(READY, READY)
            assert await chorus.synthesize("Both still serve.") == bytes(AUDIO_BYTES)


@pytest.mark.parametrize(
    ("text", "error", "code", "retries"),
    [("fail", SynthesisError, "synthesis_failed", 1), ("unspeakable", InvalidRequestError, "unspeakable", 0)],
)
async def test_only_a_failure_of_the_engine_is_tried_elsewhere_and_only_once(
    run_dir: Path, text: str, error: type[InvalidRequestError | SynthesisError], code: str, retries: int
) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 3, processes)
        async with running_dispatcher(run_dir) as chorus:
            await chorus.until_phases(READY, READY, READY)
            with pytest.raises(error, match="the stub was told to") as caught:
                await chorus.synthesize(text)
            assert caught.value.code == code
            assert chorus.count("chorus_retries_total") == retries
            await chorus.until_idle()


async def test_a_failure_of_one_worker_is_not_the_texts(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 2, processes)
        async with running_dispatcher(run_dir) as chorus:
            await chorus.until_phases(READY, READY)
            result = await chorus.dispatch("fail once")
            assert (result.pcm, result.attempts) == (bytes(AUDIO_BYTES), 2)
            assert chorus.count("chorus_worker_failures_total") == 1
            assert chorus.phases() == [READY, READY]


async def test_the_only_worker_is_tried_again(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 1, processes)
        async with running_dispatcher(run_dir) as chorus:
            assert (await chorus.dispatch("fail once")).attempts == 2


async def test_a_worker_that_fails_where_another_succeeds_is_restarted(run_dir: Path) -> None:
    with ExitStack() as processes:
        sick = processes.enter_context(start_stub(run_dir, 0, audio_bytes=AUDIO_BYTES))
        processes.enter_context(start_stub(run_dir, 1, audio_bytes=AUDIO_BYTES))
        async with running_dispatcher(run_dir) as chorus:
            await chorus.until_phases(READY, READY)
            names = (f"u{number}" for number in count())
            async with asyncio.timeout(TIMEOUT):
                # While the slot of a failed attempt is held, the other worker may speak any number of utterances.
                while chorus.count("chorus_workers_ejected_total") < 1:
                    assert await chorus.synthesize("fail on 0", next(names)) == bytes(AUDIO_BYTES)
                for _ in range(10):
                    assert await chorus.synthesize("fail on 0", next(names)) == bytes(AUDIO_BYTES)
                assert await asyncio.to_thread(sick.process.wait) == 0
            assert chorus.count("chorus_workers_ejected_total") == 1
            assert chorus.count("chorus_workers_lost_total") == 0
            assert chorus.count("chorus_retries_total") == 3
            processes.enter_context(start_stub(run_dir, 0, audio_bytes=AUDIO_BYTES))
            await chorus.until_phases(READY, READY)


async def test_texts_that_fail_everywhere_eject_no_worker(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 2, processes)
        async with running_dispatcher(run_dir) as chorus:
            await chorus.until_phases(READY, READY)
            for number in range(8):
                with pytest.raises(SynthesisError):
                    await chorus.synthesize("fail", f"u{number}")
                assert chorus.scheduler.running == 0, "a slot is kept for a text that fails everywhere"
            assert chorus.phases() == [READY, READY]
            assert chorus.count("chorus_workers_ejected_total") == 0


async def test_a_worker_that_fails_at_once_draws_no_more_work_than_others(run_dir: Path) -> None:
    """Without the hold of its slot it would be free whenever the other is busy."""
    with ExitStack() as processes:
        start_stubs(run_dir, 2, processes)
        async with running_dispatcher(run_dir, ejection_failures=0) as chorus:
            await chorus.until_phases(READY, READY)
            busy = asyncio.create_task(chorus.synthesize("slow", "busy"))
            await chorus.until_running(1)
            index = next(view.index for view in chorus.dispatcher.host_state.workers() if view.phase is READY)
            text = f"fail on {index}"
            failing = [asyncio.create_task(chorus.synthesize(text, f"u{number}")) for number in range(10)]
            while chorus.count("chorus_retries_total") < 1:
                await asyncio.sleep(0)
            assert chorus.dispatcher.host_state.free_slots == 0
            (run_dir / "go").touch()
            assert await busy == bytes(AUDIO_BYTES)
            assert set(await asyncio.gather(*failing)) == {bytes(AUDIO_BYTES)}


PIECE_BYTES = 1_920
SOUND = bytes([0, 0x20]) * (AUDIO_BYTES // 2)


async def listen(chorus: RunningDispatcher, text: str, heard: bytearray) -> bytes:
    """The PCM of an utterance whose first piece is of PIECE_BYTES; `heard` is what was handed on of it meanwhile."""
    utterance = Utterance(id=text, text=text, voice="default", seed=1, first_piece_tokens=1)
    async with asyncio.timeout(TIMEOUT):
        early = EarlyAudio(heard.extend)
        return (await chorus.dispatcher.synthesize(utterance, Terms(playout_deadline=0.0), early)).pcm


async def test_a_retry_goes_on_where_the_lost_worker_ended(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 2, processes)
        async with running_dispatcher(run_dir) as chorus:
            await chorus.until_phases(READY, READY)
            heard = bytearray()
            assert await listen(chorus, "die within once", heard) == heard == SOUND
            assert chorus.count("chorus_retries_total") == 1


@pytest.mark.parametrize("text", ["differ", "shorten"])
async def test_a_retry_whose_audio_does_not_fit_is_an_error(run_dir: Path, text: str) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 2, processes)
        async with running_dispatcher(run_dir) as chorus:
            await chorus.until_phases(READY, READY)
            heard = bytearray()
            with pytest.raises(SynthesisError, match="does not fit"):
                await listen(chorus, text, heard)
            assert heard == SOUND[:PIECE_BYTES]
            await chorus.until_idle()


@pytest.mark.parametrize("text", ["wait within", "differ in a hedge"])
async def test_a_hedge_gives_no_listener_other_audio_nor_the_same_twice(run_dir: Path, text: str) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 2, processes)
        async with running_dispatcher(run_dir, timeouts=EARLY_HEDGE) as chorus:
            await chorus.until_phases(READY, READY)
            heard = bytearray()
            listening = asyncio.create_task(listen(chorus, text, heard))
            async with asyncio.timeout(TIMEOUT):
                while chorus.count("chorus_hedges_total") < 1 or not heard:
                    await asyncio.sleep(0.005)
                while text != "wait within" and 'reason="diverged"' not in chorus.metrics.exposition().decode():
                    await asyncio.sleep(0.005)
            assert not listening.done()
            (run_dir / "go").touch()
            # Whichever attempt was heard first, the rest is the same one's.
            assert await listening == heard == heard[:SAMPLE_BYTES] * (AUDIO_BYTES // SAMPLE_BYTES)


@asynccontextmanager
async def odd_worker(path: Path, pid: int, answer: Callable[[str], bytes]) -> AsyncIterator[None]:
    """A worker whose every utterance is answered with `answer(id)`, a whole response or more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().partition("content-length:")[2].partition("\r\n")[0])
            body = await reader.readexactly(length)
            if head.startswith("POST /synthesize"):
                writer.write(answer(json.loads(body)["id"]))
            else:
                state = worker_state(pid=pid, model="odd").model_dump_json()
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(state)}\r\n\r\n{state}".encode())

    async with unix_server(path, serve):
        yield


def response(utterance_id: str, pcm: bytes = bytes(AUDIO_BYTES), samples: int = AUDIO_BYTES // 2) -> bytes:
    closing = EndOfUtterance(id=utterance_id, samples=samples, compute_seconds=0.1).model_dump_json().encode()
    body = encode_frame(FrameKind.PCM, pcm) + encode_frame(FrameKind.END, closing)
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    "answer",
    [
        lambda name: response(name, samples=7),
        lambda name: response(name, pcm=bytes(AUDIO_BYTES + 1)),
        lambda name: response(f"{name}-before"),
        lambda name: response(name)[:-1] + b"?",
    ],
    ids=["count", "half a sample", "of another utterance", "damaged"],
)
async def test_a_worker_with_odd_answers_is_ejected(run_dir: Path, answer: Callable[[str], bytes]) -> None:
    with start_stub(run_dir, 1, audio_bytes=AUDIO_BYTES):
        async with (
            odd_worker(run_dir / "worker-0.sock", 10**7, answer),
            running_dispatcher(run_dir) as chorus,
        ):
            await chorus.until_phases(READY, READY)
            number = 0
            async with asyncio.timeout(TIMEOUT):
                while chorus.count("chorus_workers_ejected_total") < 1:
                    assert await chorus.synthesize("Hello.", f"u{number}") == bytes(AUDIO_BYTES)
                    number += 1


async def test_a_second_answer_is_given_to_nobody_and_counts_against_the_worker(run_dir: Path) -> None:
    late = bytes([1]) * AUDIO_BYTES
    async with (
        odd_worker(run_dir / "worker-0.sock", 10**7, lambda name: response(name) + response(name, pcm=late)),
        running_dispatcher(run_dir) as chorus,
    ):
        await chorus.until_phases(READY)
        for number in range(3):
            assert await chorus.synthesize("Hello.", f"u{number}") == bytes(AUDIO_BYTES)
        async with asyncio.timeout(TIMEOUT):
            while chorus.count("chorus_workers_ejected_total") < 1:
                await asyncio.sleep(0)


async def test_a_worker_that_is_full_after_all_costs_no_retry(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 1, processes)
        async with running_dispatcher(run_dir) as chorus:
            assert await chorus.synthesize("full") == bytes(AUDIO_BYTES)
            assert chorus.count("chorus_retries_total") == 0
            assert chorus.count("chorus_workers_lost_total") == 0


async def test_utterances_go_to_different_workers_and_the_rest_is_queued(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 2, processes)
        async with running_dispatcher(run_dir) as chorus:
            await chorus.until_phases(READY, READY)
            synthesis = [asyncio.create_task(chorus.synthesize("slow", f"u{number}")) for number in range(5)]
            await chorus.until_running(2)
            await chorus.until_phases(WorkerPhase.BUSY, WorkerPhase.BUSY)
            assert chorus.dispatcher.host_state.depth == 3
            (run_dir / "go").touch()
            assert await asyncio.gather(*synthesis) == [bytes(AUDIO_BYTES)] * 5
            assert chorus.dispatcher.host_state.depth == 0


async def test_cancelling_stops_the_worker_and_frees_its_slot(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 1, processes)
        async with running_dispatcher(run_dir) as chorus:
            synthesis = asyncio.create_task(chorus.synthesize("hang"))
            await chorus.until_running(1)
            synthesis.cancel()
            with pytest.raises(asyncio.CancelledError):
                await synthesis
            assert await chorus.synthesize("The slot is free.", "next") == bytes(AUDIO_BYTES)
            assert chorus.scheduler.running == 0


async def test_cancelling_on_a_worker_that_another_client_keeps_full_frees_the_slot(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 1, processes)
        async with running_dispatcher(run_dir) as chorus:
            await chorus.until_phases(READY)
            someone_else = WorkerClient(run_dir / "worker-0.sock", state_timeout=TIMEOUT)
            theirs = Utterance(id="theirs", text="hang", voice="default", seed=1)
            occupying = asyncio.create_task(someone_else.synthesize(theirs))
            await chorus.until_running(1)
            synthesis = asyncio.create_task(chorus.synthesize("Refused for now."))
            async with asyncio.timeout(TIMEOUT):
                while not (run_dir / "refused").exists():
                    await asyncio.sleep(0.005)
            synthesis.cancel()
            with pytest.raises(asyncio.CancelledError):
                await synthesis
            occupying.cancel()
            with pytest.raises(asyncio.CancelledError):
                await occupying
            await someone_else.close()
            assert await chorus.synthesize("The slot is free.", "next") == bytes(AUDIO_BYTES)
            assert chorus.scheduler.running == 0


async def test_cancelling_in_the_queue_leaves_the_queue(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 1, processes)
        async with running_dispatcher(run_dir) as chorus:
            first = asyncio.create_task(chorus.synthesize("slow", "first"))
            await chorus.until_running(1)
            second = asyncio.create_task(chorus.synthesize("Never spoken.", "second"))
            await asyncio.sleep(0)
            assert chorus.dispatcher.host_state.depth == 1
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            assert chorus.dispatcher.host_state.depth == 0
            (run_dir / "go").touch()
            assert await first == bytes(AUDIO_BYTES)


async def test_a_worker_that_stops_answering_is_lost_with_what_it_runs(run_dir: Path) -> None:
    with ExitStack() as processes:
        hanging = processes.enter_context(start_stub(run_dir, 0, audio_bytes=AUDIO_BYTES))
        async with running_dispatcher(run_dir, probe_timeout=HASTY_PROBES) as chorus:
            synthesis = asyncio.create_task(chorus.synthesize("slow"))
            await chorus.until_running(1)
            os.kill(hanging.process.pid, signal.SIGSTOP)
            processes.enter_context(start_stub(run_dir, 1, audio_bytes=AUDIO_BYTES))
            (run_dir / "go").touch()
            assert await synthesis == bytes(AUDIO_BYTES)
            await chorus.until_phases(WorkerPhase.GONE, READY)
            os.kill(hanging.process.pid, signal.SIGCONT)
            await chorus.until_phases(READY, READY)
            assert chorus.count("chorus_retries_total") == 1


async def test_a_worker_that_is_unresponsive_for_long_is_killed(run_dir: Path) -> None:
    with ExitStack() as processes:
        hanging = processes.enter_context(start_stub(run_dir, 0, audio_bytes=AUDIO_BYTES))
        async with running_dispatcher(run_dir, probe_timeout=HASTY_PROBES, unresponsive_seconds=1.0) as chorus:
            await chorus.until_phases(READY)
            os.kill(hanging.process.pid, signal.SIGSTOP)
            async with asyncio.timeout(TIMEOUT):
                assert await asyncio.to_thread(hanging.process.wait) == -signal.SIGKILL


async def test_a_worker_that_never_answered_is_killed_too(run_dir: Path) -> None:
    with start_stub(run_dir, 0, audio_bytes=AUDIO_BYTES) as hanging:
        os.kill(hanging.process.pid, signal.SIGSTOP)
        # A process that may be starting is given more time.
        brief = 0.5 / STARTING_FACTOR
        async with running_dispatcher(run_dir, probe_timeout=HASTY_PROBES, unresponsive_seconds=brief):
            async with asyncio.timeout(TIMEOUT):
                assert await asyncio.to_thread(hanging.process.wait) == -signal.SIGKILL


async def test_an_attempt_that_takes_too_long_is_retried_on_another_worker(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 2, processes)
        async with running_dispatcher(run_dir, timeouts=SHORT) as chorus:
            await chorus.until_phases(READY, READY)
            result = await chorus.dispatch("hang once")
            assert (result.pcm, result.attempts) == (bytes(AUDIO_BYTES), 2)
            assert chorus.count("chorus_retries_total") == 1
            assert chorus.count("chorus_workers_lost_total") == 0
            await chorus.until_idle()
            assert chorus.count('chorus_wasted_seconds_total{reason="attempt_timeout"}') >= SHORT.seconds


async def test_an_utterance_that_times_out_on_two_workers_is_poisoned(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 3, processes)
        async with running_dispatcher(run_dir, timeouts=TOO_SHORT) as chorus:
            await chorus.until_phases(READY, READY, READY)
            with pytest.raises(PoisonedError, match="2 workers crashed or timed out"):
                await chorus.synthesize("hang")
            await chorus.until_idle()
            assert chorus.phases() == [READY, READY, READY]


async def test_a_slow_attempt_is_hedged_on_an_idle_worker(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 2, processes)
        async with running_dispatcher(run_dir, timeouts=EARLY_HEDGE) as chorus:
            await chorus.until_phases(READY, READY)
            result = await chorus.dispatch("hang once")
            assert (result.pcm, result.attempts) == (bytes(AUDIO_BYTES), 1)
            assert chorus.count("chorus_hedges_total") == 1
            assert chorus.count("chorus_retries_total") == 0
            await chorus.until_idle()
            assert chorus.count('chorus_wasted_seconds_total{reason="hedge"}') > 0


async def test_there_is_no_hedge_while_utterances_are_queued(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 1, processes)
        async with running_dispatcher(run_dir, timeouts=EARLY_HEDGE) as chorus:
            await chorus.until_phases(READY)
            synthesis = asyncio.create_task(chorus.synthesize("slow"))
            waiting = asyncio.create_task(chorus.synthesize("slow", "waiting"))
            await chorus.until_running(1)
            (run_dir / "go").touch()
            await asyncio.gather(synthesis, waiting)
            assert chorus.count("chorus_hedges_total") == 0


async def test_the_hedge_may_be_the_slower_attempt(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 2, processes)
        async with running_dispatcher(run_dir, timeouts=EARLY_HEDGE) as chorus:
            await chorus.until_phases(READY, READY)
            synthesis = asyncio.create_task(chorus.synthesize("slow"))
            await chorus.until_running(2)
            (run_dir / "go").touch()
            assert await synthesis == bytes(AUDIO_BYTES)
            await chorus.until_idle()
            assert chorus.count("chorus_hedges_total") == 1


@asynccontextmanager
async def crashing_worker(path: Path, index: int) -> AsyncIterator[None]:
    """A worker that crashes on every utterance, and comes back at once as another process."""
    pids = count(10**7)  # larger than any real process id
    pid = next(pids)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal pid
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST /synthesize"):
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                pid = next(pids)
                return
            state = worker_state(index=index, pid=pid, model="crashing").model_dump_json()
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(state)}\r\n\r\n{state}".encode())

    async with unix_server(path, serve):
        yield


async def test_retries_are_suspended_where_every_utterance_crashes_its_worker(run_dir: Path) -> None:
    """There are more utterances than retries in the budget; without it, each would crash two workers."""
    utterances = 2 * MIN_RESERVE
    async with AsyncExitStack() as running:
        for index in range(4):
            await running.enter_async_context(crashing_worker(run_dir / f"worker-{index}.sock", index))
        chorus = await running.enter_async_context(running_dispatcher(run_dir))
        synthesis = [chorus.synthesize("Hello.", f"u{number}") for number in range(utterances)]
        answers = await asyncio.gather(*synthesis, return_exceptions=True)
        assert {type(answer) for answer in answers} == {PoisonedError, NotServingError}
        assert chorus.count("chorus_retries_total") < utterances


async def test_a_deadline_that_the_queue_makes_unreachable_is_refused_at_once(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 1, processes)
        async with running_dispatcher(run_dir) as chorus:
            await chorus.until_phases(READY)
            synthesis = asyncio.create_task(chorus.synthesize("slow"))
            long = asyncio.create_task(chorus.synthesize("A long text. " * 1000, "long"))
            await chorus.until_running(1)
            with pytest.raises(DeadlineUnreachableError, match="queued before this text") as caught:
                await chorus.dispatch("Hello.", "late", Terms(deadline=asyncio.get_running_loop().time() + 5))
            assert caught.value.retry_after is not None
            (run_dir / "go").touch()
            await asyncio.gather(synthesis, long)
            await chorus.dispatch("Hello.", "early", Terms(deadline=asyncio.get_running_loop().time() + TIMEOUT))


async def test_a_draining_worker_finishes_its_utterances_and_gets_no_more(run_dir: Path) -> None:
    with ExitStack() as processes:
        leaving = processes.enter_context(start_stub(run_dir, 0, audio_bytes=AUDIO_BYTES))
        async with running_dispatcher(run_dir) as chorus:
            await chorus.until_phases(READY)
            synthesis = asyncio.create_task(chorus.synthesize("slow"))
            await chorus.until_running(1)
            await chorus.dispatcher.retire(0)
            assert chorus.phases() == [WorkerPhase.DRAINING]
            waiting = asyncio.create_task(chorus.synthesize("Hello.", "waiting"))
            (run_dir / "go").touch()
            assert await synthesis == bytes(AUDIO_BYTES)
            async with asyncio.timeout(TIMEOUT):
                assert await asyncio.to_thread(leaving.process.wait) == 0
            start_stubs(run_dir, 1, processes)
            assert await waiting == bytes(AUDIO_BYTES)
            assert chorus.count("chorus_workers_lost_total") == 0
            assert chorus.count("chorus_retries_total") == 0


async def test_the_time_spent_for_a_client_that_left_is_counted_as_wasted(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 1, processes)
        async with running_dispatcher(run_dir) as chorus:
            await chorus.until_phases(READY)
            synthesis = asyncio.create_task(chorus.synthesize("slow"))
            await chorus.until_running(1)
            queued = asyncio.create_task(chorus.synthesize("Hello.", "queued"))
            await asyncio.sleep(0)
            for task in (queued, synthesis):
                task.cancel()
            await asyncio.gather(queued, synthesis, return_exceptions=True)
            await chorus.until_idle()
            assert chorus.count('chorus_wasted_seconds_total{reason="cancelled"}') > 0
            assert chorus.count('chorus_cancellations_total{stage="queued"}') == 1
            assert chorus.count('chorus_cancellations_total{stage="running"}') == 1


async def test_the_queue_is_bounded(run_dir: Path) -> None:
    with ExitStack() as processes:
        start_stubs(run_dir, 1, processes)
        async with running_dispatcher(run_dir, limit=2) as chorus:
            await chorus.until_phases(READY)
            synthesis = [asyncio.create_task(chorus.synthesize("slow", f"u{number}")) for number in range(3)]
            await chorus.until_running(1)
            with pytest.raises(QueueFullError, match="2 utterances are queued already"):
                await chorus.synthesize("One too many.", "more")
            (run_dir / "go").touch()
            await asyncio.gather(*synthesis)


async def test_without_workers_queued_utterances_fail_after_the_recovery_time(run_dir: Path) -> None:
    async with running_dispatcher(run_dir, recovery_seconds=0.2) as chorus:
        with pytest.raises(NotServingError, match="no worker has opened its socket"):
            await chorus.synthesize("Hello?")
        assert chorus.dispatcher.host_state.depth == 0
        with pytest.raises(NotServingError):
            await chorus.synthesize("At once, this time.")


async def test_the_reason_why_a_model_cannot_be_loaded_is_reported(run_dir: Path) -> None:
    with start_stub(run_dir, 0, phase=Phase.FAILED):
        async with running_dispatcher(run_dir, recovery_seconds=0.2) as chorus:
            await chorus.until_phases(WorkerPhase.FAILED)
            with pytest.raises(NotServingError, match="there are no weights; run: make weights"):
                await chorus.synthesize("Hello?")
            assert chorus.phases() == [WorkerPhase.FAILED]
            assert chorus.dispatcher.host_state.why_not_serving() == (
                "no worker can load its model: there are no weights; run: make weights"
            )


async def test_queued_utterances_are_served_once_a_worker_is_ready(run_dir: Path) -> None:
    async with running_dispatcher(run_dir) as chorus:
        synthesis = asyncio.create_task(chorus.synthesize("Hello?"))
        await asyncio.sleep(0)
        with start_stub(run_dir, 0, phase=Phase.STARTING):
            await chorus.until_phases(WorkerPhase.STARTING)
            assert chorus.dispatcher.host_state.why_not_serving() == "the workers are starting"
        with start_stub(run_dir, 0, audio_bytes=AUDIO_BYTES):
            assert await synthesis == bytes(AUDIO_BYTES)
