"""Prints the table of errors that docs/api.md has: status, code, meaning, and what the client is to do."""

from __future__ import annotations

from collections.abc import Iterator

from balancer.errors import FURTHER_CODES, ChorusError
from scripts.support.markdown import table


def error_markdown() -> str:
    """The table of errors in Markdown, by status and code."""
    rows = [(error.status, error.code, _meaning(error), error.advice) for error in _tree(ChorusError)]
    rows += [(further.status, code, further.meaning, further.advice) for code, further in FURTHER_CODES.items()]
    heading = ("status", "code", "meaning", "what to do")
    return table(heading, [(str(status), f"`{code}`", *words) for status, code, *words in sorted(rows)])


def _tree(error: type[ChorusError]) -> Iterator[type[ChorusError]]:
    yield error
    for subclass in error.__subclasses__():
        yield from _tree(subclass)


def _meaning(error: type[ChorusError]) -> str:
    if error is ChorusError:
        return "A defect of the server; its log has the details."
    return " ".join((error.__doc__ or "").split())


if __name__ == "__main__":
    print(error_markdown())
