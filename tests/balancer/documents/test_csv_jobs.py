from __future__ import annotations

import pytest

from balancer.documents import csv_jobs
from balancer.documents.csv_jobs import read
from balancer.documents.document import DocumentError


def jobs(text: str) -> list[tuple[str, str | None]]:
    return [(job.text, job.character) for job in read(text).jobs]


def test_texts_and_voices() -> None:
    assert jobs('text,character\n"Hello, you.",ada\nBye.,\n') == [("Hello, you.", "ada"), ("Bye.", None)]


@pytest.mark.parametrize(
    "text",
    [
        "text\nHello.",
        "Text ;Voice\nHello.;",
        "id\ttext\tnote\n1\tHello.\tx",
        '\n"text"\n\nHello.\n , \n'.replace(" , ", " "),
        "text,character\nHello.",
    ],
)
def test_tables_of_other_shapes(text: str) -> None:
    assert jobs(text) == [("Hello.", None)]


def test_a_text_of_several_lines() -> None:
    assert jobs('text\n"One.\nTwo."\nThree.') == [("One.\nTwo.", None), ("Three.", None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column `text`: the first line must name the columns"),
        ("Hello, you.\nBye.", "no column `text`"),
        ("text,character\n,ada", "line 2 has no text"),
        ("text\nHello, you.", "line 2 has 2 fields, and the first line names 1: write a text"),
        ('text\n"Hello', "not CSV: unexpected end of data"),
        ('text\n"a"b', "not CSV"),
    ],
)
def test_a_table_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read(text)


def test_too_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_jobs, "MAX_JOBS", 2)
    with pytest.raises(DocumentError, match="more than 2 rows"):
        read("text\na\nb\nc")
