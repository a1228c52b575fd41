from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from prometheus_client import CollectorRegistry, Histogram

from balancer.operations.loop_lag import observe_loop_lag


def lags(histogram: Histogram) -> dict[str, float]:
    [metric] = histogram.collect()
    return {sample.labels.get("le", sample.name): sample.value for sample in metric.samples}


async def test_the_lag_of_a_blocked_loop_is_observed() -> None:
    histogram = Histogram("lag", "", buckets=(0.1, 60.0), registry=CollectorRegistry())
    watching = asyncio.create_task(observe_loop_lag(histogram.observe, 0.01))
    while lags(histogram)["lag_count"] < 3:
        await asyncio.sleep(0.005)
    before = lags(histogram)
    time.sleep(0.3)  # noqa: ASYNC251 - what is to be seen
    while lags(histogram)["lag_count"] <= before["lag_count"]:
        await asyncio.sleep(0.005)
    after = lags(histogram)
    assert after["60.0"] - after["0.1"] > before["60.0"] - before["0.1"], "one was between 0.1 s and 60 s late"
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
