import itertools
import re
from collections import Counter
from typing import Any

import pytest

from balancer.load import texts


def draw_texts(number: int, *, seed: int = 0, repeat: float = 0, first_number: int = 0) -> list[Any]:
    source = texts.TextMix(seed)
    given = texts.generate_texts(source, seed=seed, repeat=repeat, first_number=first_number)
    return list(itertools.islice(given, number))


@pytest.mark.parametrize("repeat", [0, 0.6])
def test_the_mix_keeps_its_proportions(repeat: float) -> None:
    given = draw_texts(10_000, repeat=repeat)
    counts = Counter(text.length for text in given)
    assert counts["short"] == pytest.approx(6_000, rel=0.05)
    assert counts["medium"] == pytest.approx(3_000, rel=0.05)
    assert counts["long"] == pytest.approx(1_000, rel=0.1)


def test_each_class_has_its_number_of_sentences() -> None:
    for text in draw_texts(200):
        assert len(re.findall(r"[.?!](?: |$)", text.content)) == texts.LENGTH_CLASSES[text.length].sentences


def test_texts_are_unique_by_default() -> None:
    given = draw_texts(5_000)
    assert len({text.content for text in given}) == 5_000
    assert not any(text.repeated for text in given)


def test_repeated_texts_have_their_share_and_occurred_before() -> None:
    given = draw_texts(10_000, repeat=0.6)
    earlier = set()
    for text in given:
        assert text.repeated == (text.content in earlier)
        earlier.add(text.content)
    assert sum(text.repeated for text in given) == pytest.approx(6_000, rel=0.05)


def test_each_text_of_a_template_has_another_name() -> None:
    given = [text.content for text in texts.template_texts("Hello NAME. Bye, NAME.", seed=1)]
    assert len(set(given)) == len(given) == texts.NAME_COUNT
    assert given == [text.content for text in texts.template_texts("Hello NAME. Bye, NAME.", seed=1)]
    assert given != [text.content for text in texts.template_texts("Hello NAME. Bye, NAME.", seed=2)]
    assert all(re.fullmatch(r"Hello (\w+ \w+)\. Bye, \1\.", text) for text in given)


def test_runs_with_one_seed_have_equal_sentences_but_no_text_in_common() -> None:
    first, second = (draw_texts(500, first_number=number) for number in (1_000, 5_000))
    bare = [[text.content.partition(": ")[2] for text in given] for given in (first, second)]
    assert bare[0] == bare[1]
    assert {text.content for text in first}.isdisjoint(text.content for text in second)


def test_numbers_are_spelt_differently() -> None:
    assert texts.spell_number(40_217) == "four, two, seventeen"
    assert texts.spell_number(993_020) == "ninety-nine, thirty, twenty"
    numbers = range(0, texts.NUMBER_COUNT, 7)
    assert len({texts.spell_number(number) for number in numbers}) == len(numbers)
