"""The mean flow behind the Original's tokens: upstream's audio with Turbo's S3Gen, whatever others are in flight."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest

from tests.support.batched import BUDGET, TEXTS, all_samples, begin, start, together
from tests.support.stock import BUILT_IN, StockEngine, cloned, synthesize
from tests.support.stock import start as start_stock
from tests.support.tiny_models import tiny_checkpoint_with_mean_flow
from worker.cards import FlowModel
from worker.engines.base import VoiceSource
from worker.engines.chatterbox.batched import BatchedEngine

Pair = tuple[StockEngine, BatchedEngine]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The Original in both runtimes, with the mean flow."""
    folder, cache = tiny_checkpoint_with_mean_flow("chatterbox"), tmp_path_factory.mktemp("cache")
    stock = start_stock("chatterbox", folder, cache, flow=FlowModel.MEANFLOW)
    batched = start("chatterbox", folder, cache, flow=FlowModel.MEANFLOW)
    assert stock.model == batched.model == f"chatterbox with meanflow from {folder}"
    return stock, batched


@pytest.fixture(scope="module")
def ada(engines: Pair, tmp_path_factory: pytest.TempPathFactory) -> VoiceSource:
    source = cloned(tmp_path_factory.mktemp("voices"), turbo=False)
    for engine in engines:
        engine.prepare(source)
    return source


def test_each_utterance_equals_upstreams_and_is_the_same_alone(engines: Pair, ada: VoiceSource) -> None:
    stock, batched = engines
    jobs = {number: (text, (BUILT_IN, ada)[number % 2], 30 + number) for number, text in enumerate(TEXTS[:2])}
    found = together({number: partial(begin, batched, *job) for number, job in jobs.items()}, random.Random(3))
    for number, (text, source, seed) in jobs.items():
        expected = synthesize(stock, text, source, seed=seed, budget=BUDGET)
        assert found[number].shape == expected.shape
        assert np.abs(found[number] - expected).max() < 1e-4
    assert np.array_equal(all_samples(begin(batched, *jobs[1])), found[1])
