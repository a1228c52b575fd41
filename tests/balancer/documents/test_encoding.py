from __future__ import annotations

import pytest

from balancer.documents.document import DocumentError
from balancer.documents.encoding import decode


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_texts_in_unicode(encoding: str) -> None:
    assert decode("Zoë\r\nand\rAda".encode(encoding)) == "Zoë\nand\nAda"


def test_another_encoding_is_named_with_its_line() -> None:
    with pytest.raises(DocumentError, match=r"not text in UTF-8 \(line 2\): save it again"):
        decode(b"one\nZo\xeb")


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(DocumentError, match="no text"):
        decode(b"a\0b")
