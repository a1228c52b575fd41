"""The stock engine on tiny checkpoints: equal utterances give equal, watermarked audio, and can be cancelled."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.stock import (
    BUDGET,
    BUILT_IN,
    TOKEN_SAMPLES,
    CountedCancellation,
    StockEngine,
    cloned,
    start,
    synthesize,
)
from tests.support.tiny_models import MODELS, PACK, TinyCheckpoint
from worker.cards import CARDS, LANGUAGES, Parameter
from worker.engines.base import Cancellation, CancelledError, Samples, UnspeakableError, VoiceSource
from worker.engines.chatterbox.token_budget import token_budget
from worker.engines.chatterbox.upstream import patches
from worker.engines.chatterbox.upstream.loading import VARIANTS
from worker.runner import to_pcm

LAUGH = 50_257 + 18
"""Token of Turbo's tag [laugh]."""

GetEngine = Callable[[str], StockEngine]


@pytest.fixture(scope="module")
def get(tiny_checkpoint: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> GetEngine:
    """Returns the engine of a name, loading it at the first call; all engines share one cache."""
    cache = tmp_path_factory.mktemp("cache")
    loaded: dict[str, StockEngine] = {}

    def get(name: str) -> StockEngine:
        if name not in loaded:
            loaded[name] = start(name, tiny_checkpoint(name), cache)
        return loaded[name]

    return get


@pytest.fixture(scope="module")
def turbo(get: GetEngine) -> StockEngine:
    return get("turbo")


@pytest.fixture(scope="module")
def ada(turbo: StockEngine, tmp_path_factory: pytest.TempPathFactory) -> VoiceSource:
    """A voice with a reference clip, prepared by Turbo."""
    source = cloned(tmp_path_factory.mktemp("voices"))
    turbo.prepare(source)
    return source


@contextmanager
def called_with(owner: Any, method: str) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    """A list of the positional and keyword arguments of each call of an object's method, within the block."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    original = getattr(owner, method)

    def call(*arguments: Any, **named: Any) -> Any:
        calls.append((arguments, named))
        return original(*arguments, **named)

    setattr(owner, method, call)
    try:
        yield calls
    finally:
        delattr(owner, method)


def test_the_engine_matches_its_card(turbo: StockEngine, tiny_checkpoint: TinyCheckpoint) -> None:
    assert turbo.card is CARDS["turbo"]
    assert turbo.card.sample_rate == turbo.loaded.upstream.sr == 24_000
    assert turbo.slots == 1
    assert turbo.model == f"turbo from {tiny_checkpoint('turbo')}"


# Samples


@pytest.mark.parametrize("engine", MODELS)
def test_every_engine_gives_the_same_samples_each_time(
    get: GetEngine, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = synthesize(get(engine), budget=4)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert 0.001 < np.abs(samples).max() <= 1
    variant = VARIANTS[engine]
    # Turbo draws its first token before its loop, and appends three tokens of silence.
    assert len(samples) == TOKEN_SAMPLES * (4 + 1 + 3 if variant.turbo else 4 - variant.drops_last_token)
    assert np.array_equal(synthesize(get(engine), budget=4), samples)
    assert capsys.readouterr() == ("", "")


def test_samples_do_not_change_with_the_next_utterance(turbo: StockEngine) -> None:
    first = synthesize(turbo)
    copy = first.copy()
    synthesize(turbo, seed=8)
    assert np.array_equal(first, copy)


def test_the_budget_is_the_smaller_of_the_texts_and_the_utterances(turbo: StockEngine) -> None:
    own = TOKEN_SAMPLES * (token_budget("A.") + 4)
    assert len(synthesize(turbo, "A.", budget=None)) == own
    assert len(synthesize(turbo, "A.", budget=token_budget("A.") + 1)) == own
    assert len(synthesize(turbo, "A.", budget=token_budget("A.") - 1)) == own - TOKEN_SAMPLES


# The same utterance always gives the same samples


def test_samples_depend_on_the_seed_and_not_on_earlier_utterances(turbo: StockEngine, ada: VoiceSource) -> None:
    first, in_adas_voice = synthesize(turbo), synthesize(turbo, source=ada)

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    def another_seed() -> None:
        synthesize(turbo, seed=8)

    def another_voice() -> None:
        synthesize(turbo, "Something else.", ada, budget=5)

    def other_parameters() -> None:
        synthesize(turbo, temperature=2.0, top_k=5, top_p=0.5, repetition_penalty=2.0)

    def cancelled(at: int) -> None:
        with pytest.raises(CancelledError):
            synthesize(turbo, cancellation=CountedCancellation(at))

    def failed() -> None:
        handle = turbo.loaded.upstream.s3gen.flow.decoder.register_forward_pre_hook(fail)
        with pytest.raises(ZeroDivisionError):
            synthesize(turbo)
        handle.remove()

    for disturb in (
        another_seed,
        another_voice,
        other_parameters,
        lambda: cancelled(3),
        lambda: cancelled(BUDGET + 3),
        failed,
        lambda: torch.manual_seed(99),
        lambda: turbo.prepare(ada),
    ):
        disturb()
        assert np.array_equal(synthesize(turbo), first)
        assert np.array_equal(synthesize(turbo, source=ada), in_adas_voice)


def test_another_seed_voice_or_text_gives_other_samples(turbo: StockEngine, ada: VoiceSource) -> None:
    first = synthesize(turbo, budget=12)
    others = (
        synthesize(turbo, budget=12, seed=8),
        synthesize(turbo, budget=12, source=ada),
        synthesize(turbo, "Something else altogether, and more of it!", budget=12),
    )
    for other in others:
        assert len(other) == len(first)
        assert np.abs(other - first).max() > 0.001


def test_exaggeration_does_not_reach_the_next_utterance(get: GetEngine) -> None:
    original = get("chatterbox")
    calm = synthesize(original, budget=4)
    with called_with(original.loaded.upstream.t3, "inference") as calls:
        for parameters in ({"exaggeration": 1.5}, {}, {"exaggeration": 0.0}, {}):
            spoken = synthesize(original, budget=4, parameters=parameters)
    assert [arguments["t3_cond"].emotion_adv.item() for _, arguments in calls] == [1.5, 0.5, 0.0, 0.5]
    assert np.array_equal(spoken, calm)


# Parameters


def between(parameter: Parameter) -> float:
    """A whole number within the range other than the default, or else the middle."""
    return next(
        (
            number
            for number in range(1, 4)
            if parameter.minimum <= number <= parameter.maximum and number != parameter.default
        ),
        (parameter.minimum + parameter.maximum) / 2,
    )


@pytest.mark.parametrize("engine", MODELS)
def test_every_parameter_reaches_upstream_with_its_type(get: GetEngine, engine: str) -> None:
    numbers = [parameter for parameter in CARDS[engine].parameters if isinstance(parameter, Parameter)]
    parameters = {parameter.name: between(parameter) for parameter in numbers}
    with called_with(get(engine).loaded.upstream, "generate") as calls:
        synthesize(get(engine), budget=1)
        synthesize(get(engine), budget=1, parameters=parameters)
    for (_, arguments), expected in zip(
        calls, ({parameter.name: parameter.default for parameter in numbers}, parameters), strict=True
    ):
        assert {name: value for name, value in arguments.items() if name != "language_id"} == pytest.approx(expected)
        for parameter in numbers:
            assert type(arguments[parameter.name]) is (int if parameter.integer else float), parameter.name
        assert ("language_id" in arguments) == VARIANTS[engine].multilingual


# The repetition penalty is missing from these tests: with random weights no token is repeated.


@pytest.mark.parametrize(("name", "value"), [("temperature", 5), ("top_p", 0.01), ("top_k", 1)])
def test_turbos_sampling_parameters_change_the_samples(turbo: StockEngine, name: str, value: float) -> None:
    assert not np.array_equal(synthesize(turbo), synthesize(turbo, parameters={name: value}))


@pytest.mark.parametrize(
    ("name", "value"), [("cfg_weight", 2.0), ("temperature", 5.0), ("top_p", 0.01), ("min_p", 1.0)]
)
def test_the_originals_sampling_parameters_change_the_samples(get: GetEngine, name: str, value: float) -> None:
    # With min_p = 0 every token can be drawn.
    others = {"min_p": 0.0} | {name: value}
    assert not np.array_equal(
        synthesize(get("chatterbox"), min_p=0.0), synthesize(get("chatterbox"), parameters=others)
    )


@pytest.mark.parametrize(
    "parameters", [{"temperature": 1}, {"temperature": 2}, {"top_p": 1}, {"top_k": 0}, {"top_k": 6563}, {"top_k": 5.0}]
)
def test_integers_and_bounds_work(turbo: StockEngine, parameters: dict[str, float]) -> None:
    assert len(synthesize(turbo, budget=2, parameters=parameters)) > 0


@pytest.mark.parametrize("engine", MODELS)
@pytest.mark.parametrize("bound", ["minimum", "maximum"])
def test_the_bounds_of_every_card_work(get: GetEngine, engine: str, bound: str) -> None:
    parameters = {
        parameter.name: getattr(parameter, bound)
        for parameter in CARDS[engine].parameters
        if isinstance(parameter, Parameter)
    }
    assert np.isfinite(synthesize(get(engine), budget=3, parameters=parameters)).all()


def test_no_guidance(get: GetEngine) -> None:
    original = get("chatterbox")
    none = synthesize(original, budget=4, cfg_weight=0)
    assert np.array_equal(none, synthesize(original, budget=4, cfg_weight=1e-6))
    assert not np.array_equal(none, synthesize(original, budget=4, cfg_weight=1))


# Languages


def tokens(engine: StockEngine, text: str, source: VoiceSource = BUILT_IN, **parameters: float | str) -> list[int]:
    """The text tokens that T3 receives."""
    method = "inference_turbo" if engine.card.name in ("turbo", "nano") else "inference"
    with called_with(engine.loaded.upstream.t3, method) as calls:
        synthesize(engine, text, source, budget=1, parameters=parameters)
    received: list[int] = calls[0][1]["text_tokens"][0].tolist()
    return received


def test_the_language_reaches_the_model(get: GetEngine) -> None:
    engine = get("multilingual")
    german, french = tokens(engine, "Ja.", language="de"), tokens(engine, "Ja.", language="fr")
    assert [one != other for one, other in zip(german, french, strict=True)].count(True) == 1


@pytest.mark.parametrize("language", ["de", "de-AT"])
def test_the_language_defaults_to_the_voices(get: GetEngine, language: str) -> None:
    engine = get("multilingual-v3")
    source = replace(BUILT_IN, voice=BUILT_IN.voice.model_copy(update={"language": language}))
    assert tokens(engine, "Ja.", source) == tokens(engine, "Ja.", language="de")
    assert tokens(engine, "Ja.", source, language="fr") == tokens(engine, "Ja.", language="fr")


def test_a_language_pack_speaks_its_language_whatever_the_voices(get: GetEngine) -> None:
    engine = get(PACK)
    assert BUILT_IN.voice.language == "en"
    assert tokens(engine, "Sí.") == tokens(engine, "Sí.", language="es")
    with pytest.raises(UnspeakableError, match="does not speak 'pt'; it speaks: es"):
        synthesize(engine, "Não.", language="pt")


def test_the_last_token_of_v3_is_not_heard(get: GetEngine) -> None:
    engine = get("multilingual-v3")
    tokens_heard = {budget: len(synthesize(engine, budget=budget)) / TOKEN_SAMPLES for budget in (1, 2, 3)}
    assert tokens_heard == {1: 1, 2: 1, 3: 2}


TEXTS = {
    "zh": "你好",
    "ja": "日本です",
    "ko": "안녕",
    "he": "שלום",
    "ru": "Привет",
    "ar": "مرحبا",
    "hi": "नमस्ते",
    "el": "Γεια",
}


@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {"zh"}))
def test_every_language_of_the_card_is_synthesised(get: GetEngine, language: str) -> None:
    assert len(synthesize(get("multilingual-v3"), TEXTS.get(language, "Ja, no."), budget=1, language=language)) > 0


def test_chinese_needs_a_segmentation_model(get: GetEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = get("multilingual")
    before = synthesize(engine, budget=3)
    monkeypatch.setattr("spacy_pkuseg.config.pkuseg_home", str(tmp_path))
    with pytest.raises(UnspeakableError, match="run `chorus models download` for this engine"):
        synthesize(engine, "你好", language="zh")
    assert np.array_equal(synthesize(engine, budget=3), before)


# Tags


def test_a_tag_is_one_token_anywhere_in_the_text(turbo: StockEngine) -> None:
    assert tokens(turbo, "[laugh]").count(LAUGH) == 1
    received = tokens(turbo, "Ha. [laugh] Well, [laugh]then.")
    assert received.count(LAUGH) == 2
    assert len(received) == len("Ha. ") + 1 + len(" Well, ") + 1 + len("then.")
    assert LAUGH not in tokens(turbo, "[laughs]")


# The watermark


@pytest.fixture(scope="module")
def detect() -> Callable[[Samples], float]:
    """The confidence of upstream's own detector that audio is watermarked, in [0, 1]."""
    with patches.muted():
        import perth

        detector = perth.PerthImplicitWatermarker()

    def detect(samples: Samples) -> float:
        return float(detector.get_watermark(samples, sample_rate=24_000, round=False).mean())

    return detect


@pytest.mark.parametrize("engine", MODELS)
def test_all_audio_is_watermarked(
    get: GetEngine, engine: str, detect: Callable[[Samples], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = get(engine)
    marked = synthesize(made, budget=20)
    monkeypatch.setattr(made.loaded.upstream.watermarker, "apply_watermark", lambda wav, sample_rate: wav)
    unmarked = synthesize(made, budget=20)
    assert len(marked) == len(unmarked) - made.loaded.variant.drops_last_token * TOKEN_SAMPLES
    assert detect(unmarked) < 0.2
    assert detect(marked) > 0.9
    sent = np.frombuffer(to_pcm(marked), "<i2").astype(np.float32) / 32767
    assert detect(sent) > 0.9


@pytest.mark.parametrize("engine", ["turbo", "chatterbox"])
@pytest.mark.parametrize("outside", [torch.enable_grad, torch.no_grad])
def test_nothing_keeps_a_graph_of_gradients(get: GetEngine, engine: str, outside: Callable[[], Any]) -> None:
    made = get(engine)
    graphs: list[object] = []

    def record_graphs(_: Any, __: Any, output: Any) -> None:
        graphs.extend(tensor.grad_fn for tensor in output)

    handle = made.loaded.upstream.watermarker.perth_net.encoder.register_forward_hook(record_graphs)
    with outside():
        synthesize(made, budget=2)
    handle.remove()
    assert graphs == [None, None]


# Cancellation


@pytest.mark.parametrize("engine", ["turbo", "chatterbox"])
def test_cancelled_at_any_time(get: GetEngine, engine: str) -> None:
    made = get(engine)
    counted = CountedCancellation()
    expected = synthesize(made, budget=4, cancellation=counted)
    assert counted.checks >= 4 + 4, "it checks at every token, and within flow and vocoder"
    for at in (1, 2, 5, 6, counted.checks):
        cancellation = CountedCancellation(at)
        with pytest.raises(CancelledError):
            synthesize(made, budget=4, cancellation=cancellation)
        assert cancellation.checks == at
    assert np.array_equal(synthesize(made, budget=4), expected)


def test_a_cancelled_utterance_does_not_reach_s3gen(turbo: StockEngine) -> None:
    with called_with(turbo.loaded.upstream.s3gen, "inference") as calls, pytest.raises(CancelledError):
        synthesize(turbo, cancellation=CountedCancellation(BUDGET))
    assert calls == []


def test_cancelled_before_its_start(turbo: StockEngine) -> None:
    cancellation = Cancellation()
    cancellation.request()
    with pytest.raises(CancelledError):
        synthesize(turbo, cancellation=cancellation)


def test_a_cancellation_stops_only_its_own_utterance(turbo: StockEngine) -> None:
    late = Cancellation()
    first = synthesize(turbo, cancellation=late)
    late.request()
    assert np.array_equal(synthesize(turbo), first)
    turbo.prepare(BUILT_IN)


# The guard against run-on


class HookCounter(Cancellation):
    """Records the number of hooks on T3's attention at each check of the decode loop."""

    def __init__(self, engine: StockEngine) -> None:
        super().__init__()
        self._engine = engine
        self.hooks: list[int] = []

    def check(self) -> None:
        self.hooks.append(hooks(self._engine))


def hooks(engine: StockEngine) -> int:
    return sum(len(layer.self_attn._forward_hooks) for layer in engine.loaded.upstream.t3.tfmr.layers)


@pytest.mark.parametrize(("engine", "guards"), [("multilingual", 3), ("multilingual-v3", 0)])
def test_the_guard_is_removed_after_each_utterance(get: GetEngine, engine: str, guards: int) -> None:
    made = get(engine)
    configuration = made.loaded.upstream.t3.tfmr.config
    before = (configuration.output_attentions, configuration._attn_implementation)
    for _ in range(3):
        counter = HookCounter(made)
        synthesize(made, budget=2, cancellation=counter)
        assert counter.hooks[0] == guards
        assert hooks(made) == 0
        assert (configuration.output_attentions, configuration._attn_implementation) == before
    with pytest.raises(CancelledError):
        synthesize(made, budget=3, cancellation=CountedCancellation(2))
    assert hooks(made) == 0
    assert (configuration.output_attentions, configuration._attn_implementation) == before


# Output


def test_nothing_is_printed(
    tiny_checkpoint: TinyCheckpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    synthesize(start("nano", tiny_checkpoint("nano"), tmp_path), budget=2)
    assert capfd.readouterr() == ("", "")
