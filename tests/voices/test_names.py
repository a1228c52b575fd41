"""Names of voices: which lines are names, which are equal, and the names of their folders."""

# ruff: noqa: RUF001 - characters that look alike are its subject

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voices.names import MAX_NAME_CHARACTERS, SAFE, folder_name, free_name, name_key, voice_name

PRINTABLE = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=MAX_NAME_CHARACTERS)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ada", "ada"),
        ("J. R. R. O'Neil-Smith", "J. R. R. O'Neil-Smith"),
        ("  two   blanks\xa0 and\u3000more ", "two blanks and more"),
        ("Zoe\u0308", "Zoë"),
        ("日本", "日本"),
        ("نیم\u200cفاصله", "نیم\u200cفاصله"),
        ("../x", "../x"),
        ("x" * 100, "x" * 100),
    ],
)
def test_a_name_is_a_printable_line(text: str, name: str) -> None:
    assert voice_name(text) == name


@pytest.mark.parametrize(
    ("text", "reason", "offer"),
    [
        ("", "is empty", "narrator"),
        (" \t\n", "is empty", "narrator"),
        ("\u200d", "is empty", "narrator"),
        ("a\tb", "has a control character (U+0009)", "a b"),
        ("a\x00b", "has a control character (U+0000)", "ab"),
        ("a\x85b", "has a control character (U+0085)", "a b"),
        ("\x1b[31mred", "has a control character (U+001B)", "[31mred"),
        ("a\u2028b", "has a line break (U+2028)", "a b"),
        ("\u202eada", "has an invisible character (U+202E)", "ada"),
        ("a\udce9", "has a byte that is not UTF-8 (U+DCE9)", "a"),
        ("a\ue000", "has a character of private use (U+E000)", "a"),
        ("\uffff", "has a character that Unicode does not have (U+FFFF)", "narrator"),
        ("y" * 101, "has 101 characters, and may have 100", "y" * 100),
    ],
)
def test_what_is_no_name_is_told_with_one_that_would_do(text: str, reason: str, offer: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as refused:
        voice_name(text)
    assert f"{offer!r} would do" in str(refused.value)
    assert voice_name(offer) == offer


@given(st.text(max_size=150))
def test_what_is_offered_is_a_name(text: str) -> None:
    try:
        name = voice_name(text)
    except ValueError as refused:
        name = str(refused).rsplit("; ", 1)[1].removesuffix(" would do")[1:-1].encode().decode("unicode_escape")
        if not name.isascii():  # escapes are undone for ASCII only
            return
    assert voice_name(name) == name


@pytest.mark.parametrize(
    "names",
    [
        ["ada", "ADA", " Ada ", "\tada\n", "ａｄａ", "a\xadda"],
        ["Zoë", "ZOË", "zoe\u0308", "Zoë\u200b"],
        ["Straße", "STRASSE", "strasse"],
        ["Ada Lovelace", "ada\xa0lovelace", "ADA   LOVELACE"],
        ["ΣΊΣΥΦΟΣ", "σίσυφος"],
        ["ﬁn", "FIN"],
        ["☎", "☎\ufe0f"],
    ],
)
def test_equal_names(names: list[str]) -> None:
    assert len({name_key(name) for name in names}) == 1
    assert len({folder_name(name) for name in names}) == 1


@pytest.mark.parametrize(("one", "other"), [("Zoe", "Zoë"), ("a b", "ab"), ("a-b", "a b"), ("a/b", "a.b"), ("", "-")])
def test_different_names(one: str, other: str) -> None:
    assert name_key(one) != name_key(other)
    assert folder_name(one) != folder_name(other)


@given(st.text())
def test_keys_are_their_own_keys(text: str) -> None:
    key = name_key(text)
    assert name_key(key) == key
    assert name_key(unicodedata.normalize("NFD", text)) == key


@given(st.text())
def test_a_folders_name_is_safe(text: str) -> None:
    folder = folder_name(text)
    assert SAFE.fullmatch(folder)
    assert folder_name(folder) == folder


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("ada", "ada"),
        ("Ada", "ada"),
        ("ada_2-b", "ada_2-b"),
        ("Zoë", r"zoe-[0-9a-f]{10}"),
        ("J. R. R. O'Neil-Smith", r"j-r-r-o-neil-smith-[0-9a-f]{10}"),
        ("日本", r"voice-[0-9a-f]{10}"),
        ("../../etc/passwd", r"etc-passwd-[0-9a-f]{10}"),
        (".hidden", r"hidden-[0-9a-f]{10}"),
        ("x" * 100, r"x{40}-[0-9a-f]{10}"),
    ],
)
def test_the_folder_of_a_name(name: str, folder: str) -> None:
    assert re.fullmatch(folder, folder_name(name))


@given(PRINTABLE)
def test_a_free_name_is_another_name(name: str) -> None:
    taken = {folder_name(name)}
    for _ in range(3):
        free = free_name(name, taken)
        assert len(free) <= MAX_NAME_CHARACTERS
        assert folder_name(free) not in taken
        taken.add(folder_name(free))


def test_free_names_look_like_the_name() -> None:
    assert free_name("ada", {"ada"}) == "ada-2"
    assert free_name("ada", {"ada", "ada-2"}) == "ada-3"
    assert free_name("Zoë", set()) == "Zoë 2"
