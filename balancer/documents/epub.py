"""The chapters of an EPUB: the pages that its package lists, with the titles of its table of contents (EPUB 3.3).

Nothing is unpacked to the disk, and nothing outside of the file is read. What is read of it is bounded, whatever its
directory says.
"""

from __future__ import annotations

import posixpath
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from urllib.parse import unquote, urldefrag
from xml.etree.ElementTree import Element, ParseError
from zipfile import BadZipFile, ZipFile

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from balancer.documents import xhtml
from balancer.documents.document import MAX_CHAPTERS, MAX_CHARACTERS, Chapter, Document, DocumentError, title_of
from balancer.documents.encoding import decode

MAX_MEMBERS = 20_000
MAX_MEMBER_BYTES = 16 * 2**20
"""Of one page, unpacked."""
MAX_UNPACKED_BYTES = 64 * 2**20
"""Of all that is read."""

CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
PAGE_TYPES = ("application/xhtml+xml", "text/html")
NAVIGATION = "nav"

_ENCODING = re.compile(rb"""\A<\?xml[^>]{1,100}?encoding=["']([\w-]{1,40})["']""")
_DAMAGED = "it is no whole EPUB: copy it, or save it, again"


@dataclass(frozen=True)
class _Item:
    """An entry of the package's manifest."""

    path: str
    media_type: str
    properties: tuple[str, ...]


class _Archive:
    """The files of an EPUB. Counts what is unpacked."""

    def __init__(self, content: bytes) -> None:
        try:
            self._zip = ZipFile(BytesIO(content))
        except (BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise DocumentError(_DAMAGED) from error
        members = self._zip.infolist()
        if len(members) > MAX_MEMBERS:
            raise DocumentError(f"it has more than {MAX_MEMBERS} files")
        self._members = {member.filename: member for member in members}
        self._left = MAX_UNPACKED_BYTES

    def __contains__(self, path: str) -> bool:
        """Whether there is such a file."""
        return path in self._members

    def read(self, path: str) -> bytes:
        """A file. Raises DocumentError."""
        member = self._members.get(path)
        if member is None:
            raise DocumentError(f"{path!r} is missing in it: copy it, or save it, again")
        if member.flag_bits & 1:
            raise DocumentError("it is encrypted: save it without a password")
        limit = min(MAX_MEMBER_BYTES, self._left)
        try:
            with self._zip.open(member) as file:
                content = file.read(limit + 1)
        except (BadZipFile, zlib.error, NotImplementedError, ValueError, EOFError, OSError) as error:
            raise DocumentError(_DAMAGED) from error
        if len(content) > limit:
            raise DocumentError(f"{path!r} is too large, unpacked: save the book's text alone, in parts")
        self._left -= len(content)
        return content

    def xml(self, path: str) -> Element:
        """A file of XML, without a definition of entities. Raises DocumentError."""
        try:
            root: Element = fromstring(self.read(path))
        except DefusedXmlException as error:
            raise DocumentError(f"{path!r} in it defines entities, which are not read") from error
        except (ParseError, ValueError, LookupError) as error:
            raise DocumentError(f"{path!r} in it is not XML ({error}): save it again") from error
        return root

    def text(self, path: str) -> str:
        """A page. Raises DocumentError."""
        content = self.read(path)
        declared = _ENCODING.match(content)
        if declared is not None and declared[1].lower() in (b"iso-8859-1", b"latin1", b"windows-1252"):
            return content.decode("cp1252", errors="replace")
        return decode(content)


def read(content: bytes) -> Document:
    """The document. Raises DocumentError."""
    archive = _Archive(content)
    if CONTAINER not in archive:
        raise DocumentError("it is a zip archive, but no EPUB")
    package_path = _package_path(archive)
    package = archive.xml(package_path)
    manifest = _manifest(package, package_path)
    spine = _spine(package, manifest)
    _check_protection(archive, {item.path for item in spine})
    chapters = tuple(_chapters(archive, spine, _contents(archive, package, manifest)))
    if not chapters:
        raise DocumentError("none of its pages has a text: are they pictures?")
    title = next((element.text for element in _named(package, "title") if element.text), "")
    return Document(title_of(title), chapters)


def _package_path(archive: _Archive) -> str:
    for element in _named(archive.xml(CONTAINER), "rootfile"):
        if path := element.get("full-path"):
            return path
    raise DocumentError("its container names no package: save it again")


def _manifest(package: Element, package_path: str) -> dict[str, _Item]:
    folder = posixpath.dirname(package_path)
    return {
        element.get("id", ""): _Item(
            _resolved(folder, element.get("href", "")),
            element.get("media-type", ""),
            tuple(element.get("properties", "").split()),
        )
        for element in _named(package, "item")
    }


def _spine(package: Element, manifest: dict[str, _Item]) -> list[_Item]:
    """The pages in the order in which they are read, without those that are beside it."""
    pages = []
    for element in _named(package, "itemref"):
        item = manifest.get(element.get("idref", ""))
        beside = element.get("linear") == "no" or (item is not None and NAVIGATION in item.properties)
        if item is not None and item.media_type in PAGE_TYPES and not beside:
            pages.append(item)
    if len(pages) > MAX_CHAPTERS:
        raise DocumentError(f"it has more than {MAX_CHAPTERS} pages")
    return pages


def _check_protection(archive: _Archive, pages: set[str]) -> None:
    """Refuse a book whose pages are encrypted; embedded fonts often are."""
    if ENCRYPTION in archive:
        for element in _named(archive.xml(ENCRYPTION), "CipherReference"):
            if unquote(element.get("URI", "")) in pages:
                raise DocumentError("it is protected against copying (DRM): only its shop's reader can open it")


def _contents(archive: _Archive, package: Element, manifest: dict[str, _Item]) -> dict[str, str]:
    """The titles of the table of contents by page: for one that it names several times, the first."""
    for item in manifest.values():
        if NAVIGATION in item.properties and item.path in archive:
            links = xhtml.links(archive.text(item.path))
            return _by_page(item.path, links)
    spine = next(_named(package, "spine"), None)
    ncx = None if spine is None else manifest.get(spine.get("toc", ""))
    if ncx is None or ncx.path not in archive:
        return {}
    points = []
    for point in _named(archive.xml(ncx.path), "navPoint"):
        label = next((element.text for element in _named(point, "text") if element.text), "")
        source = next(_named(point, "content"), None)
        if label and source is not None:
            points.append((source.get("src", ""), label))
    return _by_page(ncx.path, points)


def _by_page(path: str, links: list[tuple[str, str]]) -> dict[str, str]:
    titles: dict[str, str] = {}
    for target, title in links:
        titles.setdefault(_resolved(posixpath.dirname(path), target), title_of(title))
    return titles


def _chapters(archive: _Archive, spine: list[_Item], titles: dict[str, str]) -> Iterator[Chapter]:
    """The chapters. A page that the table of contents leaves out goes on with the one before, if that is in it."""
    chapter: Chapter | None = None
    characters = 0
    for item in spine:
        page = xhtml.read(archive.text(item.path))
        characters += len(page.text)
        if characters > MAX_CHARACTERS:
            raise DocumentError(f"its text has more than {MAX_CHARACTERS} characters: send it in parts")
        if not page.text:
            continue
        if chapter is not None and titles and item.path not in titles and chapter.title in titles.values():
            chapter = Chapter(chapter.title, f"{chapter.text}\n\n{page.text}")
            continue
        if chapter is not None:
            yield chapter
        chapter = Chapter(titles.get(item.path) or title_of(page.title), page.text)
    if chapter is not None:
        yield chapter


def _named(element: Element, name: str) -> Iterator[Element]:
    """The elements of that name below, whatever their namespace."""
    return (found for found in element.iter() if isinstance(found.tag, str) and found.tag.rpartition("}")[2] == name)


def _resolved(folder: str, reference: str) -> str:
    """The path of a file in the archive that is named in a file of `folder`."""
    return posixpath.normpath(posixpath.join(folder, unquote(urldefrag(reference)[0])))
