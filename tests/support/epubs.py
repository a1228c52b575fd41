"""Makes books in EPUB."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)


def page(body: str, title: str = "") -> str:
    """A page of XHTML."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><html xmlns="http://www.w3.org/1999/xhtml" '
        f'xmlns:epub="http://www.idpf.org/2007/ops"><head><title>{title}</title></head><body>{body}</body></html>'
    )


def package(pages: Sequence[str], title: str = "", *, items: str = "", spine: str = "") -> str:
    """A package document with these pages, in this order; `items` and `spine` are further lines of it."""
    manifest = "".join(
        f'<item id="p{number}" href="{name}" media-type="application/xhtml+xml"/>' for number, name in enumerate(pages)
    )
    order = "".join(f'<itemref idref="p{number}"/>' for number in range(len(pages)))
    return (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<metadata><dc:title>{title}</dc:title></metadata><manifest>{manifest}{items}</manifest>"
        f'<spine toc="ncx">{order}{spine}</spine></package>'
    )


def archive(files: Mapping[str, str | bytes]) -> bytes:
    """A zip archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in files.items():
            made.writestr(name, text)
    return content.getvalue()


def book(
    pages: Mapping[str, str], title: str = "", *, items: str = "", spine: str = "", **others: str | bytes
) -> bytes:
    """A book with these pages of XHTML. `others` are files of `OEBPS`, with `_` for the dot of their names."""
    files: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": package(list(pages), title, items=items, spine=spine),
    }
    files |= {f"OEBPS/{name}": text for name, text in pages.items()}
    return archive(files | {f"OEBPS/{name.replace('_', '.')}": text for name, text in others.items()})
