"""The table of kernels in docs/engine.md is what the code chooses by."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.support.kernel_table import kernel_markdown

ENGINE = (Path(__file__).parents[5] / "docs" / "engine.md").read_text()


def test_the_table_of_kernels_is_the_generated_one() -> None:
    table = re.search(r"<!-- kernels: .*? -->\n(.*?)\n<!-- end of kernels -->", ENGINE, re.DOTALL)
    assert table is not None
    assert table[1] == kernel_markdown(), "run `python -m scripts.support.kernel_table` and put its output there"
