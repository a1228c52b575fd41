"""Whether the encoders of two S3Gen are equal, by their tensors."""

from __future__ import annotations

import torch

from tests.support.stock import StockEngine
from worker.engines.chatterbox.upstream.encoders import differing_tensors

assert StockEngine is not None  # imported first: it suppresses upstream's warnings

ONE = {
    "tokenizer.encoder.conv1.weight": torch.arange(6.0).reshape(2, 3),
    "tokenizer.window": torch.ones(3),
    "speaker_encoder.head.bn1.running_mean": torch.ones(4),
    "speaker_encoder.head.bn1.num_batches_tracked": torch.tensor(3),
    "flow.input_embedding.weight": torch.ones(2),
}


def test_only_what_hears_counts() -> None:
    other = {name: tensor.clone() for name, tensor in ONE.items()}
    other["flow.input_embedding.weight"] = torch.zeros(2)
    other["flow.decoder.estimator.time_embed_mixer.weight"] = torch.zeros(2)
    other["speaker_encoder.head.bn1.num_batches_tracked"] = torch.tensor(4)
    del other["tokenizer.window"]
    assert differing_tensors(ONE, other, ignored=("tokenizer.window",)) == []
    assert differing_tensors(ONE, other, ignored=()) == ["tokenizer.window"]


def test_values_shapes_and_presence_count_and_precision_does_not() -> None:
    name, norm = "tokenizer.encoder.conv1.weight", "speaker_encoder.head.bn1.running_mean"
    assert differing_tensors(ONE, ONE | {name: ONE[name].half()}, ignored=()) == []
    assert differing_tensors(ONE, ONE | {name: ONE[name].reshape(3, 2)}, ignored=()) == [name]
    assert differing_tensors(ONE, ONE | {name: ONE[name] + 1e-3, norm: torch.zeros(4)}, ignored=()) == [norm, name]
    assert differing_tensors({}, ONE, ignored=()) == sorted(
        set(ONE) - {"flow.input_embedding.weight", "speaker_encoder.head.bn1.num_batches_tracked"}
    )
