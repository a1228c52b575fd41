"""The jobs of a table: each row is a text, and perhaps the voice that speaks it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO

from balancer.documents.document import MAX_JOBS, Document, DocumentError, JobRow

DELIMITERS = (",", ";", "\t")
TEXT_COLUMN = "text"
VOICE_COLUMNS = ("character", "voice")
MAX_FIELD_CHARACTERS = 1_000_000

HELP = "the first line must name the columns: `text`, and if you like `character`, the voice"


def read(text: str) -> Document:
    """The document. Other columns are left out, as are empty lines. Raises DocumentError."""
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    jobs: list[JobRow] = []
    try:
        for job in _rows(text):
            if len(jobs) == MAX_JOBS:
                raise DocumentError(f"it has more than {MAX_JOBS} rows: send several files")
            jobs.append(job)
    except csv.Error as error:
        raise DocumentError(f"it is not CSV: {error}") from error
    return Document("", jobs=tuple(jobs))


def _rows(text: str) -> Iterator[JobRow]:
    header, _, _ = text.lstrip("\n").partition("\n")
    delimiter = next((mark for mark in DELIMITERS if TEXT_COLUMN in _names(header.split(mark))), None)
    if delimiter is None:
        raise DocumentError(f"it has no column `{TEXT_COLUMN}`: {HELP}")
    lines = csv.reader(StringIO(text), delimiter=delimiter, strict=True)
    names: list[str] = []
    for row in lines:
        if not any(field.strip() for field in row):
            continue
        if not names:
            names = _names(row)
            continue
        if len(row) > len(names):
            raise DocumentError(
                f"line {lines.line_num} has {len(row)} fields, and the first line names {len(names)}: "
                'write a text with the separator in quotes, "like this"'
            )
        fields = dict(zip(names, (field.strip() for field in row), strict=False))
        if not fields.get(TEXT_COLUMN):
            raise DocumentError(f"line {lines.line_num} has no text")
        voice = next((fields[name] for name in VOICE_COLUMNS if fields.get(name)), None)
        yield JobRow(fields[TEXT_COLUMN], voice)


def _names(fields: list[str]) -> list[str]:
    return [field.strip().strip('"').strip().lower() for field in fields]
