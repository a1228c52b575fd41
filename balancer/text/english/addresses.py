"""Addresses: web, e-mail, IP and ports, files and paths, handles, hashtags, identifiers of programs."""

from __future__ import annotations

import re

from balancer.text.english.cardinals import cardinal, digit_by_digit, integer, pair
from balancer.text.english.rules import At, rule

MAX_PATH_CHARACTERS = 30
"""A web address with a longer path is said by its host's name alone."""

_TOP_LEVEL = (
    "com org net edu gov mil int info io ai app dev co uk us eu de fr es it nl be ch at se no fi dk pl pt ru ua "
    "cz gr ie jp cn kr "
    "in au nz ca br mx ar za tv me ly gg fm xyz tech online site store blog cloud shop news wiki example local test"
).split()
_EXTENSIONS = (
    "bat bmp c cc cfg conf cpp cs css csv dll doc docx env epub exe flac gif go gz h hpp html ini java jpeg jpg "
    "js json jsx kt lock "
    "log lua m4a md mkv mov mp3 mp4 ogg onnx pdf php png pptx ps1 py rar rb rs rst sh so sql svg tar tex toml "
    "ts tsv tsx txt wav "
    "webm webp xls xlsx xml yaml yml zip"
).split()
_SHORT_WORDS = frozenset(
    "a an as at be by do go he hi i if in is it me my no of oh ok on or so to up we app bin env get lib log new "
    "tmp".split()
)
_SYMBOLS = {
    ".": "dot", "/": "slash", ":": "colon", "?": "question mark", "=": "equals", "&": "and", "@": "at", "#": "hash",
    "-": "dash",
    "_": "underscore", "~": "tilde", "%": "percent", "+": "plus", "\\": "backslash", "!": "exclamation mark",
    "$": "dollar",
    "*": "star", ",": "comma", ";": "semicolon", "'": "apostrophe",
}  # fmt: skip

_PIECES = re.compile(r"[0-9]+|[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+|[^\w\s]|_")
_VOWEL = re.compile(r"[aeiouy]", re.IGNORECASE)
_KEY = re.compile(r"(?=[0-9A-Za-z_-]{0,40}\d)[0-9A-Za-z_-]{16,}")


def spelled(letters: str) -> str:
    """`PY`: P Y."""
    return " ".join(letters.upper())


def spoken_name(name: str) -> str:
    """The name of a host, a file or the like: words as words, other letters one by one, symbols by name."""
    return " ".join(map(_piece, _PIECES.findall(name)))


def _piece(piece: str) -> str:
    if piece in _SYMBOLS:
        return _SYMBOLS[piece]
    if piece.isdecimal():
        return integer(piece) if len(piece) < 5 else digit_by_digit(piece)
    if not piece.isalpha():
        return piece
    is_word = piece.lower() in _SHORT_WORDS or (
        len(piece) > 2 and _VOWEL.search(piece) and piece.lower() not in ("usr", "etc", "api", "url", "aws")
    )
    return piece.lower() if is_word else spelled(piece)


def _url(match: re.Match[str]) -> str:
    address = match[0].rstrip(".,;:!?)'\"")
    behind = match[0][len(address) :]
    host, slash, path = re.sub(r"^[a-z]{2,6}://", "", address, flags=re.IGNORECASE).partition("/")
    host, query, rest = host.partition("?")
    path = query + rest + path
    if slash and host.startswith("www.") and "://" in address:
        host = host.removeprefix("www.")
    if len(path) > MAX_PATH_CHARACTERS or _KEY.search(path):
        path = ""
    return spoken_name(host + (slash + path if path else "")) + behind


def _email(match: re.Match[str]) -> str:
    user, _, host = match[0].removeprefix("mailto:").partition("@")
    return f"{spoken_name(user)} at {spoken_name(host)}"


def _ip(match: re.Match[str]) -> str:
    numbers = " dot ".join(digit_by_digit(part) for part in match[1].split("."))
    mask = f" slash {cardinal(int(match['mask']))}" if match["mask"] else ""
    return numbers + (_port(match["port"]) if match["port"] else "") + mask


def _port(port: str) -> str:
    if len(port) == 4 and port[2:] != "00":
        return (
            f" colon {cardinal(int(port[:2]))} {pair(int(port[2:]))}"
            if port[0] != "0"
            else f" colon {digit_by_digit(port)}"
        )
    return f" colon {integer(port)}"


def _host_and_port(match: re.Match[str]) -> str:
    return spoken_name(match[1]) + _port(match[2])


def _identifier(match: re.Match[str]) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", match[0].replace("_", " ")).strip()
    return words.lower() if match[0].isupper() else words


def _hashtag(match: re.Match[str]) -> str:
    return f"hashtag {re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', match[1].replace('_', ' '))}"


def _camel(match: re.Match[str]) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", match[0])


_PATH = r"[^\s<>\"\u4e00-\u9fff]"
_DOTTED = re.compile(r"\.[A-Za-z]")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

RULES = (
    rule(rf"\b(?:https?|ftp|wss?)://{_PATH}{{1,2000}}", _url, needs=("://",), flags=re.IGNORECASE, abridges=True),
    rule(
        r"(?<![\w.+-])(?:mailto:)?[A-Za-z0-9][\w.+-]{0,63}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,5}",
        _email,
        needs="@",
    ),
    rule(
        rf"(?<![\w@./-])www\.{_LABEL}(?:\.{_LABEL}){{1,5}}(?:[/?]{_PATH}{{0,2000}})?",
        _url,
        needs=("www.", "WWW.", "Www."),
        flags=re.IGNORECASE,
        abridges=True,
    ),
    rule(
        r"(?<![\w.])([0-9]{1,3}(?:\.[0-9]{1,3}){3})(?!\.?\d)(?::(?P<port>[0-9]{1,5})\b)?(?:/(?P<mask>[0-9]{1,2})\b)?",
        _ip,
        at=At.numbers,
    ),
    rule(
        rf"(?<![\w@./-])(localhost|(?=[\w.-]{{0,200}}[A-Za-z]){_LABEL}(?:\.{_LABEL}){{1,5}}):([0-9]{{2,5}})(?![\w.:])(?<=[0-9])",
        _host_and_port,
        needs=re.compile(r"\w:\d{2}"),
    ),
    rule(
        rf"(?<![\w@./-])(?:{_LABEL}\.){{1,5}}(?:{'|'.join(_TOP_LEVEL)})\b(?![\w-]|\.[a-z]{{2}})(?:[/?]{_PATH}{{0,2000}})?",
        lambda match: None if match[0][0].isdecimal() and match[0][-1].isdecimal() else _url(match),
        needs=_DOTTED,
        abridges=True,
    ),
    rule(
        rf"(?<![\w@./\\-])[\w-]{{1,80}}(?:\.[\w-]{{1,40}}){{0,3}}\.(?:{'|'.join(_EXTENSIONS)})\b(?!\.\w|[\w-])",
        lambda match: spoken_name(match[0].replace("_", " ")),
        needs=_DOTTED,
    ),
    rule(
        r"(?<![\w/.])(?:~|\.{1,2})?(?:/[\w.@+-]{1,100}){2,30}/?(?<![.])|(?<![\w/.])(?:~|\.{1,2})/[\w.@+-]{1,100}(?<![.])|(?<![\w/])/(?:usr|etc|var|tmp|home|bin|opt|dev)\b",
        lambda match: spoken_name(match[0].rstrip("/")),
        needs="/",
    ),
    rule(
        r"\b[A-Za-z]:\\[\w .\\+-]{0,200}[\w]|(?<!\\)\\\\[\w.\\+-]{1,200}[\w]",
        lambda match: spoken_name(match[0]),
        needs="\\",
    ),
    rule(
        r"(?<![\w.])@(?=[A-Za-z_])([\w.-]{0,60}\w)",
        lambda match: f"at {match[1].replace('_', ' ')}",
        needs="@",
        abridges=True,
    ),
    rule(r"(?<![\w&#])#(?=\w{0,60}[^\W\d_])(\w{1,100})", _hashtag, needs="#", abridges=True),
    rule(
        r"(?<![\w.])_{0,2}[A-Za-z][A-Za-z0-9]{0,60}(?:_{1,2}[A-Za-z0-9]{1,60}){1,20}_{0,2}(?!\w)",
        _identifier,
        needs="_",
        abridges=True,
    ),
    rule(
        r"\b(?!mmHg|i?(?:Phone|Pad|Pod|Cloud|Tunes|Mac|OS)\b)[a-z]{2,40}(?:[A-Z][a-z]{1,40}){1,8}\b",
        _camel,
        needs=re.compile("[a-z][A-Z]"),
    ),
)
