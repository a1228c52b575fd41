"""The comparison of one worker and two: the real program with real servers."""

from __future__ import annotations

import os
import re

import pytest

from tests.support.bench import TIMEOUT, bench


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="it needs a core for each of two workers")
@pytest.mark.parametrize("options", [(), ("--stub-seconds", "0.01")], ids=["voice", "stub"])
def test_both_servers_have_their_turns_and_make_the_same_audio(options: tuple[str, ...]) -> None:
    with bench("segments", "--sentences", "2", "--rounds", "2", *options) as program:
        process = program.start()
        output, messages = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, messages
        assert program.leftovers() == []
    assert re.search(r"\d+ characters, [\d.]+ s of audio, equal bytes", output)
    assert len(re.findall(r"│ +[12] +│", output)) == 2
