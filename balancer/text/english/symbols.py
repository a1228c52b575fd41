"""Symbols that have names, and punctuation as the engines know it."""

from __future__ import annotations

import re
import unicodedata

from balancer.text.english.cardinals import DIGIT_NAMES, integer
from balancer.text.english.rules import At, apply, rule
from balancer.text.marks import MARKS, PARAGRAPH_MARK

_GREEK = {
    letter: unicodedata.name(letter).split()[-1].lower()
    for letter in map(chr, (*range(0x3B1, 0x3CA), *range(0x391, 0x3A2), *range(0x3A3, 0x3AA)))
}
_GREEK = {letter: {"lamda": "lambda", "sigma": "sigma"}.get(name, name) for letter, name in _GREEK.items()}

_EMOTICON = (
    r"(?<![\w)])(?::[-'^]?[)(DPpOo|/\\*3]|;[-']?[)(DP]|[:;]'?-?\){2,}|=[)(DP]|<3(?!\d)|\^[_.]?\^|-_-|o_O"
    r"|O_o|T_T|xD|XD)(?![\w(])"
)
_SHORTCODE = r"(?<![\w:]):([a-z][a-z_+-]{1,30}):(?![\w:])"

NAMES = {
    "&": "and", "=": "equals", "<": "less than", ">": "greater than", "\u2264": "less than or equal to",
    "\u2265": "greater than or equal to",
    "\u2260": "not equal to", "\u2248": "about", "\u00d7": "times", "\u00f7": "divided by",
    "\u00b1": "plus or minus", "+": "plus",
    "\u2192": "to", "\u27a1": "to", "\u21d2": "to", "\u2794": "to", "\u2190": "from", "\u221e": "infinity",
    "\u221a": "square root of", "\u2211": "sum of",
    "%": "percent", "\u2030": "per mille", "\u00b0": "degrees", "@": "at", "\u00a7": "section", "\u2116": "number",
    "\u00b6": "paragraph",
    "\u20ac": "euros", "$": "dollars", "\u00a3": "pounds", "\u00a5": "yen", "\u00a2": "cents", "\u20b9": "rupees",
    "\u20bf": "bitcoin",
    "\u2032": "prime", "\u00b5": "micro", "\u2200": "for all", "\u2203": "there exists", "\u2208": "in",
    "\u2202": "partial", "\u222b": "integral of",
}  # fmt: skip
_NAMED = f"[{re.escape(''.join(NAMES))}]"

BEFORE_NUMBERS = (
    rule(_EMOTICON, " ", needs=re.compile(r"[:;=^][-'^?_.oO)(DP|/\\*3]|<3|[xX]D|-_-|[oO]_[oO]|T_T")),
    rule(_SHORTCODE, lambda match: f" {match[1].replace('_', ' ').replace('+', 'plus ').strip()} ", needs=":"),
    rule(r"\bC\+\+", "C plus plus", needs="+"),
    rule(r"\b([CF])#", r"\1 sharp", needs="#"),
    rule(r"\bWi-?Fi\b", "Wi-Fi", flags=re.IGNORECASE, needs=("wi", "Wi", "WI")),
    rule(r"\b([A-Z]{1,3})&([A-Z]{1,3})\b", lambda match: " and ".join(map(" ".join, match.groups())), needs="&"),
    rule(
        r"\b(Room|Gate|Seat|Flat|Apartment|Apt|Unit|Suite|Row|Bus|Block|Class|Exit|Page) ([0-9]{1,5})-?([A-Z])\b",
        r"\1 \2 \3",
        needs=re.compile(r"\d-?[A-Z]"),
        at=At.capitals,
        abridges=True,
    ),
    rule(
        r"(?<![\w.,$\u20ac\u00a3/-])([248])K\b",
        lambda match: f"{DIGIT_NAMES[int(match[1])]} K",
        needs="K",
        at=At.numbers,
    ),
    rule(
        r"(?<![\w.,$\u20ac\u00a3/-])([0-9]{1,4})([A-DF-H])(?= [A-Z][a-z])",
        lambda match: f"{integer(match[1])} {match[2]}",
        at=At.numbers,
    ),
    rule(r"\b([BPC])2([BCP])\b", r"\1 to \2", needs="2", at=At.capitals, abridges=True),
)
RULES = (
    rule(r"[\u2122\u00ae\u00a9\u2117\u2120]|\((?:tm|r|c|TM|R|C)\)", "", needs="\u2122\u00ae\u00a9\u2117\u2120("),
    rule(r"(?<=\w)\((s|es|r|d)\)", r"\1", needs="("),
    rule(r"_{2,}", " blank ", needs="_"),
    rule(r"<->|<-->|\u2194", " to and from ", needs="<\u2194"),
    rule(r"[-=]{1,2}>", " to ", needs=">"),
    rule(r"<(?:-{1,2}|==)(?!\w)", " from ", needs="<"),
    rule(r"!==?", " is not ", needs="!"),
    rule(r"<=", " less than or equal to ", needs="<"),
    rule(r">=", " greater than or equal to ", needs=">"),
    rule(r"={2,3}", " equals ", needs="="),
    rule(r"&&?", " and ", needs="&"),
    rule(r"(?<=\bx) ([<>]) ", lambda match: " is less than " if match[1] == "<" else " is greater than ", needs="<>"),
    rule(r"(?<=\by) ([\u2264\u2265]) ", lambda match: f" is {NAMES[match[1]]} ", needs="\u2264\u2265"),
    rule(r"(?<=\w)\s?\*\s?(?=\d)", " times ", needs="*"),
    rule(_NAMED, lambda match: f" {NAMES[match[0]]} ", needs="".join(NAMES)),
    rule(
        f"[{''.join(_GREEK)}](?![\u0370-\u03ff\u1f00-\u1fff])(?<![\u0370-\u03ff\u1f00-\u1fff][\u0370-\u03ff\u1f00-\u1fff])",
        lambda match: f" {_GREEK[match[0]]} ",
        needs="".join(_GREEK),
    ),
    rule(r"(?<=\w)/(?=\w)", " ", needs="/"),
)

_PUNCTUATION = (
    rule(r"\s*\u2014\s*", ", ", needs="\u2014"),
    rule(r"\s*-{2,}\s*", ", ", needs="-"),
    rule(r"\s[-\u2013]\s", ", ", needs="-\u2013"),
    rule(r"\u2013", "-", needs="\u2013"),
    rule(r"(?:\.\s?){3,}", "... ", needs=("..", ". .")),
    rule(r"\.{2}(?!\.)(?<!\.\.\.)", ".", needs=("..",)),
    rule(rf"(?<![^{PARAGRAPH_MARK}])[\s.,;:!?-]*\.\.\.[\s,;:-]*", "", needs=("...",)),
    rule(r"\.\.\.\s*(?=[a-z])", ", ", needs=("...",)),
    rule(r"\.\.\.", ". ", needs=("...",)),
    rule(r"[!?][!?1]{1,}(?!\w)", lambda match: "?" if "?" in match[0] else "!", needs="!?"),
    rule(r"\s*[(\[{]\s*", ", ", needs="([{"),
    rule(rf"\s*[)\]}}](?=\s*(?:[.,;:!?{PARAGRAPH_MARK}]|$))", "", needs=")]}"),
    rule(r"\s*[)\]}]\s*", ", ", needs=")]}"),
    rule(r"([,;:])(?:\s?[,;:])+", r"\1", needs=",;:"),
    rule(r"[\"|~^\\`*_#=+<>\u2022/\u00a1\u00bf]+", " ", needs='"|~^\\`*_#=+<>\u2022/\u00a1\u00bf'),
    rule(r"(?<![\w])'|'(?!\w)(?<![a-z]n')", " ", needs="'"),
    rule(r"(?<=[a-z]),(?=[A-Za-z])", ", ", needs=","),
    rule(r"(?<!\w)-+(?!\w)|(?<!\w)-(?=\w)|(?<=\w)-(?!\w)", " ", needs="-"),
    rule(r"\s+(?=[.,;:!?])", "", needs=tuple(f" {mark}" for mark in ".,;:!?")),
    rule(r"([,;:])[,;:]+", r"\1", needs=",;:"),
    rule(r"[,;:](?=[.!?])", "", needs=",;:"),
    rule(r"([.!?])[,;:.]+", r"\1", needs=",;:."),
    rule(r"([.!?,;:])(?=[^\W\d_])", r"\1 "),
)
_SPACES = re.compile(r"[ \t\n]+")
_SPEAKABLE = re.compile(rf"[\w{MARKS}]")


def punctuate(text: str) -> str:
    """`text` with the punctuation that the engines know: full stops, commas, colons, question and exclamation marks."""
    # Single spaces first: patterns that begin with white space would look through a long run again and again.
    text = _SPACES.sub(" ", text.replace("\n\n", PARAGRAPH_MARK))
    paragraphs = apply(_PUNCTUATION, text).split(PARAGRAPH_MARK)
    return "\n\n".join(_tidy(paragraph) for paragraph in paragraphs if _SPEAKABLE.search(paragraph))


def _tidy(paragraph: str) -> str:
    return _SPACES.sub(" ", paragraph).lstrip(" .,;:!?-").rstrip()
