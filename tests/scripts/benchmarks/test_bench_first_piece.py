"""The benchmark of first pieces: its report, and its utterances in an engine that yields numbers."""

from __future__ import annotations

from scripts.benchmarks.first_piece import FURTHER, PIECES, WHOLE, Heard, Run, report, run_side, utterances
from tests.support.held_engine import HeldEngine
from worker.engines.chatterbox.early_pieces import piece_ends


def test_a_row_compares_a_side_with_whole_utterances() -> None:
    whole = Run(WHOLE, 4.0, [Heard(4.0, 4.0, 48_000, 4.0, {"decode": 3.0, "flow": 0.5})], 0.0)
    pieces = Run(PIECES, 5.0, [Heard(1.0, 5.0, 48_000, 4.0)], 0.2)
    further = Run(FURTHER, 5.0, [Heard(1.0, 5.0, 48_000, 3.5)], 0.2)
    assert report([pieces, whole, further], 24_000).splitlines()[2:] == [
        "| whole | 4.00 | 1.000 | 4.00 | 4.00 | 0.500 | 1.000 | decode 3.00, flow 0.50 | 0.00 |",
        "| first piece | 1.00 | 0.250 | 4.00 | 5.00 | 0.400 | 0.800 |  | 0.20 |",
        "| further pieces | 1.00 | 0.250 | 3.50 | 5.00 | 0.400 | 0.800 |  | 0.20 |",
    ]


def test_the_sides_differ_in_the_pieces_alone() -> None:
    whole, pieces, further = (utterances(side, [150, 75], 25) for side in (WHOLE, PIECES, FURTHER))
    assert [each.first_piece_tokens for each in whole] == [None, None]
    assert [each.first_piece_tokens for each in pieces] == [25, 25]
    assert [piece_ends(each, 150, 3) for each in further] == [[28, 103], [28]]
    plain = {"first_piece_tokens": None, "playout_deadline": None, "further_pieces": False}
    assert [each.model_copy(update=plain) for each in pieces] == whole
    assert [each.model_copy(update=plain) for each in further] == whole
    assert [each.token_budget for each in whole] == [150, 75]


def test_every_utterance_is_made_in_the_slots_there_are() -> None:
    engine = HeldEngine(slots=2)
    run = run_side(engine, PIECES, [150] * 5, 25)
    assert sorted(engine.ended) == ["0", "1", "2", "3", "4"]
    assert engine.max_concurrent == 2
    assert all(0 < each.first_sound <= each.end for each in run.heard)
    assert sum(each.samples for each in run.heard) == 5 * sum(engine.pieces.values())
