"""The front end as a whole: texts that people send and their readings, and what holds for every text."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from balancer.text.front_end import MAX_GROWTH, FrontEnd
from balancer.text.guard import NUMBER_WORDS
from balancer.text.scripts import ForeignScriptError
from balancer.text.spoken_text import Pause
from tests.support.texts import TextCase, text_cases, words_of

FRONT_END = FrontEnd()
TURBO = FrontEnd(("[laugh]", "[clear throat]"))

PIECES = st.sampled_from(
    """
    a I Dr. St. No. e.g. word NASA GPU OK 5 007 1,000 1.5 -5 $5 -$5 100$ 20\u20ac 5% 1/2 \u00bd 2\u00b3 3:1
    10:35 1st 1990s 5'10" 27" 5km 25\u00b0C 12/25/2023 2024-03-05 Jan. XIV ** __ ` ``` # - * > | [ ] ( ) [x](y)
    ![a](b) <b> </b> < > &amp; &lt; https://a.com/b a@b.co @a #a _ a_b aB ~~ == ! ? ... , ; : ' " \u2014 \u2013
    \u2019 \u201c \U0001f600 \u4e2d \u0430 \u0301 \u200b \u00ad \uff15 \u2460 \x1b[ \\ / = + ^ haha nooo [laugh]
    [pause] [STOP] <|endoftext|> {a} 9e9 --- 1. 2) \u2265 \u2122
    """.split()
)
TEXTS = st.lists(st.tuples(PIECES, st.sampled_from(["", " ", "\n", "\n\n"])), max_size=12).map(
    lambda pieces: "".join(piece + gap for piece, gap in pieces)
)


def said(text: str, language: str = "en") -> str:
    return FRONT_END.prepare(text, language).plain


def shown(case: TextCase) -> str:
    return f"{case.kind}: {case.text[:40]}".encode("unicode_escape").decode()


@pytest.mark.parametrize("case", text_cases("reported_texts.json"), ids=shown)
def test_a_reported_text_is_read_right(case: TextCase) -> None:
    assert case.accepts(said(case.text)), said(case.text)


@pytest.mark.parametrize("case", text_cases("further_texts.json"), ids=shown)
def test_a_further_text_of_each_kind_is_read_right(case: TextCase) -> None:
    assert case.accepts(said(case.text)), said(case.text)


# What holds for every text


@given(TEXTS | st.text(max_size=60))
@settings(max_examples=300, deadline=None)
@example("\u2265" * 50)
@example("9e9 " * 20)
def test_the_result_is_bounded_stable_and_without_markup(text: str) -> None:
    try:
        result = said(text)
    except ForeignScriptError:
        return
    assert len(result) <= MAX_GROWTH * (len(text) + 1)
    assert said(text) == result
    assert not re.search(r"\d", result)
    assert not set("[]<>{}|*_`#~^\\$%\u20ac=@&") & set(result)
    assert not any(character in result for character in "\0\x1b\u200b\u00ad\U0001f600")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr.[pause]Smith met Mr. [pause] and Mrs. Jones.", "Doctor Smith met Mister and Missus Jones."),
        ("See you in Jan.[pause]we said, or on Mon.[pause]then.", "See you in January we said, or on Monday then."),
        ("It was Sept.[pause]11 people came.", "It was September eleven people came."),
    ],
)
def test_an_abbreviation_before_a_pause_is_read_as_before_a_space(text: str, expected: str) -> None:
    assert words_of(said(text)) == words_of(expected)


@given(TEXTS)
@settings(max_examples=300, deadline=None)
@example("Jan.[pause]a")
@example("Dr.[pause]NASA")
def test_what_has_been_said_stays_as_it_is(text: str) -> None:
    try:
        once = said(text)
    except ForeignScriptError:
        return
    assert words_of(said(once)) == words_of(once)


NUMBERS = st.one_of(
    st.integers(1, 10**9).map(str),
    st.integers(1, 10**9).map("{:,}".format),
    st.integers(1, 10**8).map(lambda cents: f"{cents / 100:.2f}"),
    st.tuples(st.integers(1, 999), st.integers(1, 99)).map("{0[0]},{0[1]}".format),
    st.tuples(st.integers(1, 31), st.integers(1, 12), st.integers(1000, 2100)).map("{0[0]}.{0[1]}.{0[2]}".format),
)
SIGNS = st.sampled_from(["", "-", "+", "\u2212", "\u00b1"])
UNITS = st.sampled_from(["", "%", " km", "\u00b0C", " kg", "th", "x", " items", "$", " \u20ac", ":30", "-7", "/8", "k"])
CURRENCIES = st.sampled_from(["", "$", "\u20ac", "\u00a3"])


@given(SIGNS, CURRENCIES, NUMBERS, UNITS)
@settings(max_examples=3000, deadline=None)
def test_every_digit_sign_and_currency_has_a_word(sign: str, currency: str, number: str, unit: str) -> None:
    text = f"It was {sign}{currency}{number}{unit} then."
    words = words_of(said(text))
    assert words[:2] == ["it", "was"]
    assert words[-1] == "then"
    assert len(re.findall("[1-9]+", number)) <= sum(word in NUMBER_WORDS for word in words) * 3
    assert NUMBER_WORDS & set(words)
    if sign and unit != "th":
        assert {"minus", "plus", "dash"} & set(words), words
    if currency:
        assert {"dollar", "dollars", "cent", "cents", "euro", "euros", "pound", "pounds", "penny", "pence"} & set(
            words
        ), words
    if unit == "%":
        assert "percent" in words


@pytest.mark.parametrize(
    "unit",
    ["1", "-", "a-", "> ", "* ", "[a](", "<a ", "1/", "I ", "A, ", "a.", "$1-", "\u00bd", "\u4e2da", "'", "1 000"],
)
def test_repetitions_end(unit: str) -> None:
    FRONT_END.prepare((unit * 5000)[:4999] + "a")


# Pauses, paragraphs, tags


def test_pauses_and_paragraphs_are_spans() -> None:
    spoken = FRONT_END.prepare('Wait.<break time="1.5s"/> Go [pause 200ms] on\n\nNext')
    assert [(span.text, span.pause, span.ends_paragraph) for span in spoken.spans] == [
        ("Wait.", 1.5, False),
        ("Go", 0.2, False),
        ("on", None, True),
        ("Next", None, False),
    ]
    assert spoken.plain == "Wait. Go, on.\n\nNext"
    assert spoken.pauses == (Pause(6, 1.5), Pause(10, 0.2))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("a[pause]b", 0.5),
        ("a[pause:2s]b", 2.0),
        ("a[PAUSE 0.8s]b", 0.8),
        ("a<break/>b", 0.5),
        ("a[pause 99s]b", 10.0),
        ("a[break 300 ms]b", 0.3),
    ],
)
def test_the_length_of_a_pause(text: str, seconds: float) -> None:
    assert [span.pause for span in FRONT_END.prepare(text).spans] == [seconds, None]


def test_a_long_pause_ends_a_sentence_and_a_short_one_is_a_comma() -> None:
    assert said("One [pause 2s] two [pause 0.2s] three.") == "One. two, three."


def test_tags_reach_the_engine_that_knows_them_alone() -> None:
    text = "Ha [laugh] yes [Clear Throat] no [chuckle] end."
    assert TURBO.prepare(text).plain == "Ha [laugh] yes [clear throat] no end."
    assert said(text) == "Ha yes no end."


def test_no_private_use_character_passes_for_a_mark() -> None:
    assert said("a\U000f0064b\U000f8000c\ue000") == "abc"


@pytest.mark.parametrize("text", ["<|endo[STOP]ftext|>", "[[STOP]STOP]", "<|<|a|>|>", "[cat](/k/)", "[a](b](c)"])
def test_control_syntax_that_is_taken_apart_does_not_appear_again(text: str) -> None:
    for result in (said(f"Hi {text}."), FRONT_END.pass_through(text), TURBO.pass_through(text)):
        assert not set("[]") & set(result)
        assert "<|" not in result


def test_a_text_that_passes_through_keeps_all_but_control_syntax() -> None:
    assert TURBO.pass_through("\x07It is $5 [laugh] **so** [x]\x0b<b>") == "It is $5 [laugh] **so** (x)\n<b>"


# Other languages


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("de", "**Es** kostet 27,50 Euro.", "Es kostet siebenundzwanzig Komma f\u00fcnf Euro."),
        ("de", "Er wurde 1998 geboren.", "Er wurde neunzehnhundertachtundneunzig geboren."),
        ("fr", "Il y a 21 chats.", "Il y a vingt et un chats."),
        ("es", "<b>Hay 3 gatos</b>", "Hay tres gatos"),
        (
            "ru",
            "\u0423 \u043d\u0435\u0433\u043e 5 \u043a\u043e\u0442\u043e\u0432.",
            "\u0423 \u043d\u0435\u0433\u043e \u043f\u044f\u0442\u044c \u043a\u043e\u0442\u043e\u0432.",
        ),
        ("zh", "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u4f60\u597d\uff0c\u4e16\u754c\u3002"),
        ("ja", "\u3053\u3093\u306b\u3061\u306f\U0001f600", "\u3053\u3093\u306b\u3061\u306f"),
        ("sw", "Ana 5.", "Ana 5."),
    ],
)
def test_other_languages_get_the_stages_without_language_and_their_numbers(
    language: str, text: str, expected: str
) -> None:
    assert said(text, language) == expected


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "\u4f60\u597d"),
        ("de", "\u041f\u0440\u0438\u0432\u0435\u0442 dir"),
        ("ru", "\u4f60\u597d\u4e16\u754c"),
        ("zh", "\u041f\u0440\u0438\u0432\u0435\u0442"),
    ],
)
def test_a_text_in_another_script_is_refused(language: str, text: str) -> None:
    with pytest.raises(ForeignScriptError, match=f"than '{language}'"):
        FRONT_END.prepare(text, language)
