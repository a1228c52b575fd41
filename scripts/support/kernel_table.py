"""Prints the table of kernels that docs/engine.md has: which kernel computes what on which instruction set."""

from __future__ import annotations

from scripts.support.markdown import table
from worker.engines.chatterbox.layers.selection import kernel_table


def kernel_markdown() -> str:
    """The table of kernels in Markdown."""
    heading, *rows = kernel_table()
    return table(heading, rows)


if __name__ == "__main__":
    print(kernel_markdown())
