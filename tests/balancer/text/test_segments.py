"""Texts become segments of the engine's best length, and no word is lost."""

from __future__ import annotations

import pytest
import sentencex
from hypothesis import example, given
from hypothesis import strategies as st

from balancer.text.segments import INNER_END, Boundary, Segment, shorten_first, split
from balancer.text.spoken_text import Pause
from worker.cards import SegmentLength

SHORT = SegmentLength(minimum=8, maximum=60)
LONG = SegmentLength(minimum=100, maximum=280)
CLAUSE, SENTENCE, PARAGRAPH, END = Boundary


def segments(text: str, length: SegmentLength = SHORT, language: str = "en") -> list[tuple[str, Boundary]]:
    return [(segment.text, segment.boundary) for segment in split(text, language, length)]


def texts(text: str, length: SegmentLength = SHORT, language: str = "en") -> list[str]:
    return [segment.text for segment in split(text, language, length)]


@pytest.mark.parametrize("text", ["", " ", "...", "Hello.", " Hello there. ", "Hi. Yes. No."])
def test_what_fits_into_one_segment_stays_as_it_is(text: str) -> None:
    assert split(text, "en", LONG) == [Segment(text, END)]


def test_sentences_and_paragraphs() -> None:
    assert segments("The first one is here. The second one, too.\n\nA paragraph.\n \nThe last paragraph.") == [
        ("The first one is here.", SENTENCE),
        ("The second one, too.", PARAGRAPH),
        ("A paragraph.", PARAGRAPH),
        ("The last paragraph.", END),
    ]


@pytest.mark.parametrize(
    "sentence",
    [
        "Dr. Smith met Mr. Jones at 5 p.m. yesterday.",
        "It costs $3.50 at www.example.com, i.e. not much.",
        "J. R. R. Tolkien wrote version 3.11.2 of it.",
        "Or no. 5 of St. John's Rd. in the U.S. Army.",
    ],
)
def test_abbreviations_numbers_and_addresses_end_no_sentence(sentence: str) -> None:
    assert texts(f"{sentence} It was late.") == [sentence, "It was late."]


def test_a_short_sentence_goes_with_its_neighbour() -> None:
    assert texts("Yes. He said so. We left for the harbour at noon. No.") == [
        "Yes. He said so.",
        "We left for the harbour at noon. No.",
    ]


def test_sentences_are_joined_up_to_the_best_length() -> None:
    found = texts("This sentence has forty-one characters... " * 20, LONG)
    assert all(len(text) <= LONG.maximum for text in found)
    assert all(len(text) >= LONG.minimum for text in found[:-1])
    assert len(found) == 4


def test_a_very_short_paragraph_is_not_spoken_alone() -> None:
    text = "It costs minus five dollars.\n\nOkay?\n\n" + "A paragraph that is longer than a quarter of the minimum."
    assert texts(text + " x" * 150, LONG)[0] == "It costs minus five dollars.\n\nOkay?"


def test_a_pause_of_the_text_divides_segments() -> None:
    text = "We waited, then we went. Home."
    pause = Segment("We waited,", END, silence=2.0)
    assert split(text, "en", SHORT, [Pause(11, 2.0)]) == [pause, Segment("then we went. Home.", END)]
    assert split(text, "en", SHORT, [Pause(11, 0.5), Pause(11, 1.5), Pause(len(text), 3.0)]) == [
        pause,
        Segment("then we went. Home.", END, silence=3.0),
    ]


def test_a_pause_at_the_beginning_is_before_the_first_segment() -> None:
    pauses = [Pause(0, 1.0), Pause(4, 0.5)]
    assert split("... Go. ...", "en", SHORT, pauses) == [Segment("Go. ...", END, leading_silence=1.5)]


def test_pauses_among_nothing_that_is_spoken_leave_one_segment() -> None:
    assert split("...", "en", SHORT, [Pause(0, 1.0), Pause(3, 1.0)]) == [Segment("...", END)]


def test_words_too_few_to_be_spoken_alone_are_divided_by_a_long_pause_only() -> None:
    text = "Well, " + "this is a sentence of some sixty characters, and it goes on here."
    assert split(text, "en", LONG, [Pause(6, 0.2)]) == [Segment(text, END)]
    assert [segment.text for segment in split(text, "en", LONG, [Pause(6, 0.4)])] == ["Well,", text[6:]]


def shortened(text: str, length: SegmentLength = LONG) -> list[tuple[str, Boundary]]:
    segments = shorten_first(split(text, "en", length), "en", length, 80)
    return [(segment.text, segment.boundary) for segment in segments]


def test_the_first_segment_of_what_is_to_be_heard_soon_is_a_sentence_or_a_clause() -> None:
    sentence = "The rain had stopped by noon. "
    long = "We left the harbour in the early morning, when others were still asleep, and rowed over to the island."
    assert shortened(sentence * 3 + long)[0] == ((sentence * 2).strip(), SENTENCE)
    assert shortened(long + " " + long)[0] == (long.split(" and", maxsplit=1)[0], CLAUSE)


def test_where_no_sentence_ends_soon_the_first_segment_is_as_short_as_it_can_be() -> None:
    sentence = "A light rain fell on the market while all the traders of the old town were packing up their stalls."
    assert shortened(f"{sentence} {sentence}") == [(sentence, SENTENCE), (sentence, END)]
    begin = "The violin that she had tuned with so much patience before the concert on that evening broke again,"
    assert shortened(f"{begin} and so all of us went home early. {sentence}")[0] == (begin, CLAUSE)


def test_no_rest_of_a_sentence_is_cut_off_that_is_too_short_to_be_spoken_alone() -> None:
    sentence = "We went home early, and the violin was mended on the next day by a friend of hers."
    begin = "The violin that she had tuned before the concert broke again on that day,"
    assert len(begin) <= 80 < len(f"{begin} alas, alas.")
    assert shortened(f"{begin} alas, alas. {sentence}")[0] == (f"{begin} alas, alas.", SENTENCE)


def test_a_first_segment_without_a_place_to_cut_stays_whole() -> None:
    words = "We left the harbour in the early morning when the others were still asleep and rowed to the island."
    assert shortened(words) == [(words, END)]
    assert shortened("So it is, " + words.replace(",", "")) == [("So it is, " + words, END)], "too short to be alone"


def test_a_first_segment_that_is_cut_keeps_its_silences() -> None:
    text = "The rain had stopped by noon, and so we went. " * 2
    first, second = shorten_first([Segment(text.strip(), END, 2.0, 1.0)], "en", LONG, 80)
    assert (first.leading_silence, first.silence) == (1.0, None)
    assert (second.leading_silence, second.silence) == (0.0, 2.0)


def test_a_template_has_its_name_in_a_segment_of_its_own() -> None:
    assert texts("Hello Ann. Your order has shipped.") == ["Hello Ann.", "Your order has shipped."]


def test_a_long_sentence_is_cut_at_clauses_of_about_one_length() -> None:
    sentence = "When the rain had stopped, the children went out, and in the garden they found a small, grey cat."
    assert segments(sentence) == [
        ("When the rain had stopped, the children went out,", CLAUSE),
        ("and in the garden they found a small, grey cat.", END),
    ]


def test_without_clauses_it_is_cut_between_words() -> None:
    found = texts("word " * 40)
    assert all(set(text.split()) == {"word"} and len(text) <= SHORT.maximum for text in found)
    assert sum(len(text.split()) for text in found) == 40


def test_a_word_that_is_too_long_is_cut_anywhere() -> None:
    assert "".join(texts("a" * 200)) == "a" * 200


def test_a_wide_character_counts_as_three() -> None:
    text = "\u4eca\u65e5\u306f\u5929\u6c17\u304c\u3044\u3044\u3067\u3059\u306d\u3002" * 4
    found = texts(text, language="ja")
    assert "".join(found) == text
    assert all(3 * len(segment) <= SHORT.maximum for segment in found)


@pytest.mark.parametrize("language", ["en", "en-GB", "pt_BR", "xx", ""])
def test_any_language_tag_is_taken(language: str) -> None:
    assert len(texts("The first one is here. The second one is here, too.", language=language)) == 2


@given(st.text(alphabet=st.sampled_from("ab .!?\n'\"),;1"), max_size=60))
def test_where_no_sentence_can_end_none_does(text: str) -> None:
    sentences = [sentence for sentence in sentencex.segment("en", text) if any(map(str.isalnum, sentence))]
    assert len(sentences) <= 1 or INNER_END.search(text)


@example("  ", 1)
@given(st.text(alphabet=st.sampled_from("ab ,.;!?\n\u2014\u3002\u4eca1'\""), max_size=400), st.integers(1, 80))
def test_no_character_is_lost_and_none_is_too_long(text: str, maximum: int) -> None:
    found = split(text, "en", SegmentLength(minimum=max(1, maximum // 3), maximum=maximum))
    assert "".join("".join(segment.text for segment in found).split()) == "".join(text.split())
    assert all(len(segment.text) <= maximum for segment in found)
    assert [segment.boundary for segment in found].count(END) == 1
    assert found[-1].boundary is END
