from __future__ import annotations

import io
import zipfile

import pytest

from balancer.documents import epub
from balancer.documents.document import DocumentError
from tests.support.epubs import CONTAINER, archive, book, package, page

BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'


def chapters(content: bytes) -> list[tuple[str, str]]:
    return [(chapter.title, chapter.text) for chapter in epub.read(content).chapters]


def refusal(content: bytes) -> str:
    with pytest.raises(DocumentError) as refused:
        epub.read(content)
    return str(refused.value)


def test_pages_are_chapters_in_the_order_of_the_spine() -> None:
    content = book({"b.xhtml": page("<h1>One</h1><p>First.</p>"), "a.xhtml": page("<p>Second.</p>", "Two")}, "The Book")
    assert epub.read(content).title == "The Book"
    assert chapters(content) == [("One", "One.\n\nFirst."), ("Two", "Second.")]


def test_titles_are_those_of_the_table_of_contents_and_pages_without_one_go_on() -> None:
    contents = page(
        '<nav epub:type="toc"><ol><li><a href="1.xhtml">The First</a></li><li><a href="3%2Exhtml#x">Third</a></li>'
        '<li><a href="3.xhtml#y">Part of it</a></li></ol></nav>'
    )
    content = book(
        {"0.xhtml": page("Cover"), "1.xhtml": page("One."), "2.xhtml": page("Two."), "3.xhtml": page("Three.")},
        items='<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>',
        spine='<itemref idref="nav"/>',
        nav_xhtml=contents,
    )
    assert chapters(content) == [("", "Cover"), ("The First", "One.\n\nTwo."), ("Third", "Three.")]


def test_the_table_of_contents_of_older_books() -> None:
    ncx = (
        '<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap><navPoint>'
        "<navLabel><text>The First</text></navLabel>"
        '<content src="1.xhtml"/></navPoint></navMap></ncx>'
    )
    item = '<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
    assert chapters(book({"1.xhtml": page("One.")}, items=item, toc_ncx=ncx)) == [("The First", "One.")]


def test_what_is_beside_the_book_is_left_out() -> None:
    content = book(
        {"1.xhtml": page("One.")},
        items='<item id="x" href="notes.xhtml" media-type="application/xhtml+xml"/>'
        '<item id="i" href="a.png" media-type="image/png"/>',
        spine='<itemref idref="x" linear="no"/><itemref idref="i"/><itemref idref="missing"/>',
        notes_xhtml=page("Notes."),
    )
    assert [text for _, text in chapters(content)] == ["One."]


def test_a_page_in_an_older_encoding() -> None:
    latin = '<?xml version="1.0" encoding="ISO-8859-1"?><html><body>Zo\xeb.</body></html>'.encode("latin-1")
    content = archive(
        {"META-INF/container.xml": CONTAINER, "OEBPS/book.opf": package(["1.xhtml"]), "OEBPS/1.xhtml": latin}
    )
    assert chapters(content) == [("", "Zoë.")]


@pytest.mark.parametrize("content", [b"", b"no zip", book({"1.xhtml": page("One.")})[:-30]])
def test_no_archive(content: bytes) -> None:
    assert "no whole EPUB" in refusal(content)


def test_an_archive_of_something_else() -> None:
    assert refusal(archive({"a.txt": "x"})) == "it is a zip archive, but no EPUB"


def test_pictures_only() -> None:
    assert "none of its pages has a text" in refusal(book({"1.xhtml": page('<img src="a.png"/>')}))


def test_a_page_that_is_missing() -> None:
    files: dict[str, str | bytes] = {"META-INF/container.xml": CONTAINER, "OEBPS/book.opf": package(["1.xhtml"])}
    assert "'OEBPS/1.xhtml' is missing" in refusal(archive(files))


@pytest.mark.parametrize("place", ["../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "..%2f..%2fetc%2fpasswd"])
def test_nothing_outside_of_the_archive_is_read(place: str) -> None:
    files: dict[str, str | bytes] = {"META-INF/container.xml": CONTAINER, "OEBPS/book.opf": package([place])}
    assert "is missing in it" in refusal(archive(files))


@pytest.mark.parametrize("declaration", [BOMB, '<!DOCTYPE x [<!ENTITY b SYSTEM "file:///etc/passwd">]>'])
@pytest.mark.parametrize("file", ["META-INF/container.xml", "OEBPS/book.opf", "META-INF/encryption.xml"])
def test_entities_are_refused(declaration: str, file: str) -> None:
    files: dict[str, str | bytes] = {
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": package(["1.xhtml"]),
        "OEBPS/1.xhtml": page("One."),
    }
    files[file] = f"{declaration}<x>&b;</x>"
    assert "defines entities, which are not read" in refusal(archive(files))


def test_entities_of_a_page_are_not_expanded() -> None:
    assert chapters(book({"1.xhtml": BOMB + "<html><body>One &b;.</body></html>"})) == [("", "One &b;.")]


def test_xml_that_is_none() -> None:
    assert "is not XML" in refusal(archive({"META-INF/container.xml": "<container"}))
    assert "names no package" in refusal(archive({"META-INF/container.xml": "<container/>"}))


def test_what_unpacks_to_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    content = book({"1.xhtml": page("x" * 2_000_000)})
    assert len(content) < 20_000
    monkeypatch.setattr(epub, "MAX_MEMBER_BYTES", 1_000_000)
    assert "'OEBPS/1.xhtml' is too large, unpacked" in refusal(content)


def test_pages_that_unpack_to_too_much_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epub, "MAX_UNPACKED_BYTES", 1_000_000)
    pages = {f"{number}.xhtml": page("x" * 300_000) for number in range(5)}
    assert "'OEBPS/3.xhtml' is too large, unpacked" in refusal(book(pages))


def test_too_much_text_and_too_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    content = book({f"{number}.xhtml": page("x" * 100) for number in range(5)})
    monkeypatch.setattr(epub, "MAX_CHARACTERS", 250)
    assert "more than 250 characters" in refusal(content)
    monkeypatch.setattr(epub, "MAX_CHAPTERS", 4)
    assert "more than 4 pages" in refusal(content)
    monkeypatch.setattr(epub, "MAX_MEMBERS", 3)
    assert "more than 3 files" in refusal(content)


def test_a_protected_book() -> None:
    encryption = '<encryption><CipherReference URI="OEBPS/1.xhtml"/></encryption>'
    files: dict[str, str | bytes] = {
        "META-INF/container.xml": CONTAINER,
        "META-INF/encryption.xml": encryption,
        "OEBPS/book.opf": package(["1.xhtml"]),
        "OEBPS/1.xhtml": b"\x93\x1f",
    }
    assert "DRM" in refusal(archive(files))
    files["META-INF/encryption.xml"] = encryption.replace("1.xhtml", "font.otf")
    files["OEBPS/1.xhtml"] = page("One.")
    assert chapters(archive(files)) == [("", "One.")]


def test_an_encrypted_member() -> None:
    content = io.BytesIO(archive({"META-INF/container.xml": CONTAINER}))
    data = bytearray(content.getvalue())
    with zipfile.ZipFile(content) as made:
        start = made.start_dir
    data[6] |= 1  # of the member's own header
    data[start + 8] |= 1  # of the directory
    assert "it is encrypted" in refusal(bytes(data))
