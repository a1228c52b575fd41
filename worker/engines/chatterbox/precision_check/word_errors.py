"""A recogniser's errors in speech of known words.

Imports no PyTorch, so that scripts and tests can use it where PyTorch is not installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict


class WordErrors(BaseModel):
    """How many words the recogniser got wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    errors: int
    """Words that it substituted, deleted or inserted."""
    words: int
    """Words that were to be spoken."""

    @classmethod
    def count(cls, expected: Sequence[str], transcript: str) -> Self:
        """The errors in a transcript of speech of the `expected` words, of which there is at least one."""
        import jiwer  # noqa: PLC0415 - optional: the extras `check` and `test` bring it

        found = jiwer.process_words(" ".join(expected), transcript)
        return cls(errors=found.substitutions + found.deletions + found.insertions, words=len(expected))

    @property
    def rate(self) -> float:
        """Word error rate: 1 where every word is wrong, more where words were inserted as well."""
        return self.errors / self.words

    def __add__(self, other: WordErrors) -> WordErrors:
        """The errors in both."""
        return WordErrors(errors=self.errors + other.errors, words=self.words + other.words)


def total_word_errors(word_errors: Sequence[WordErrors]) -> WordErrors | None:
    """The sum over several texts; None where there are none."""
    return sum(word_errors[1:], start=word_errors[0]) if word_errors else None
