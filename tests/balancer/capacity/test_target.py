import pytest

from balancer.capacity.step import Step
from balancer.capacity.target import Target, parse_seconds
from balancer.load.driver import RequestRecord


def record(due: float, latency: float, **fields: object) -> RequestRecord:
    values: dict[str, object] = {
        "intended": due,
        "lag": 0.0,
        "latency": latency,
        "characters": 10,
        "length": "short",
        "repeated": False,
        "error": None,
        "audio_seconds": 1.0,
    }
    return RequestRecord(**values | fields)  # type: ignore[arg-type]


def step(latencies: list[float], ages: list[float] | None = None, **fields: object) -> Step:
    """A step of ten seconds whose requests were due at equal distances."""
    records = [record(10 * number / len(latencies), latency, **fields) for number, latency in enumerate(latencies)]
    return Step.of(1.0, 10.0, records, ages or [])


def test_a_step_within_the_limits_keeps_the_target() -> None:
    assert Target(p95=2.0).broken_by(step([1.0] * 100)) == ()


@pytest.mark.parametrize(
    ("target", "measured", "reason"),
    [
        (Target(p95=2.0), step([1.0] * 90 + [3.0] * 10), "p95 3.00 s"),
        (Target(p95=2.0), step([1.0] * 90, ages=[3.0] * 10), "p95 3.00 s"),
        (Target(p95=2.0), step([1.0] * 10, error="timeout"), "10 of 10 requests failed"),
        (Target(first_sound=0.5), step([1.0] * 10, first_sound=0.7), "first sound p95 0.70 s"),
        (Target(gaps=3), step([1.0] * 4, gaps=1), "4 gaps"),
        (Target(p95=2.0), step([0.02 * number for number in range(90)]), "the queue grows: latencies rose by 1.20 s"),
    ],
)
def test_a_step_breaks_the_target(target: Target, measured: Step, reason: str) -> None:
    assert reason in target.broken_by(measured)


def test_a_long_answer_of_a_stream_does_not_count_against_its_first_sound() -> None:
    assert Target(first_sound=0.5).broken_by(step([30.0] * 10, first_sound=0.2)) == ()


@pytest.mark.parametrize(("text", "seconds"), [("2s", 2), ("500ms", 0.5), ("0.5s", 0.5), ("10m", 600), ("3", 3)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "0s", "1d", "nan", "1s2"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|more than 0"):
        parse_seconds(text)
