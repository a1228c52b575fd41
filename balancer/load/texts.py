"""The texts of a load test: a built-in mix or the lines of a file, each unique or repeated."""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol


@dataclass(frozen=True)
class Text:
    """One text to be synthesized."""

    content: str
    length: str | None
    """Its length class in the built-in mix; None for a line of a file."""
    repeated: bool = False
    """Whether it was requested before in this run."""


@dataclass(frozen=True)
class LengthClass:
    """One length class of the built-in mix: its share of all texts, and the sentences of each text."""

    share: float
    sentences: int


LENGTH_CLASSES = {
    "short": LengthClass(share=0.6, sentences=1),
    "medium": LengthClass(share=0.3, sentences=4),
    "long": LengthClass(share=0.1, sentences=20),
}


class TextSource(Protocol):
    """A source of new texts: the length class of the next text is drawn first, then a text of that class."""

    def draw_length(self) -> str | None: ...  # noqa: D102 - see the class

    def compose(self, length: str | None) -> str: ...  # noqa: D102 - see the class


class TextMix:
    """The built-in mix: texts of one, four or twenty sentences."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"mix {seed}")

    def draw_length(self) -> str:
        """Draw a length class, with the probability of its share."""
        return self._rng.choices(list(LENGTH_CLASSES), [length.share for length in LENGTH_CLASSES.values()])[0]

    def compose(self, length: str | None) -> str:
        """A text of as many different sentences as texts of that class have."""
        assert length is not None  # noqa: S101 - for mypy
        return " ".join(self._rng.sample(SENTENCES, LENGTH_CLASSES[length].sentences))


class TextLines:
    """The lines of a file, in their order; the first follows the last."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = itertools.cycle(lines)

    def draw_length(self) -> None:
        """None: lines of a file have no length class."""

    def compose(self, length: str | None) -> str:
        """The next line."""
        return next(self._lines)


def generate_texts(source: TextSource, *, seed: int, repeat: float, first_number: int) -> Iterator[Text]:
    """Texts without end; in each length class a share `repeat` of them repeats earlier texts.

    All others begin with a number of their own, counted from `first_number`, which should differ from run to run: a
    server with an audio cache would otherwise have the audio of every text of the second run.
    """
    rng = random.Random(f"repeat {seed}")
    earlier: defaultdict[str | None, list[Text]] = defaultdict(list)
    numbers = itertools.count(first_number)
    while True:
        length = source.draw_length()
        if earlier[length] and rng.random() < repeat:
            yield replace(rng.choice(earlier[length]), repeated=True)
            continue
        text = Text(f"Number {spell_number(next(numbers))}: {source.compose(length)}", length)
        earlier[length].append(text)
        yield text


NAME_PLACE = "NAME"
"""The placeholder of a name in a template."""


def template_texts(template: str, seed: int | None = None) -> Iterator[Text]:
    """The template with one name after another in the place of NAME: as many texts as NAME_COUNT, all different.

    With a seed, always in the same order.
    """
    rng = random.Random() if seed is None else random.Random(f"names {seed}")
    names = [f"{given} {family}" for given in GIVEN_NAMES for family in FAMILY_NAMES]
    rng.shuffle(names)
    for name in names:
        yield Text(template.replace(NAME_PLACE, name), None)


NUMBER_COUNT = 100**3
"""The count of numbers that `spell_number` writes differently."""


def spell_number(number: int) -> str:
    """A number in words, two digits at a time, so that all are about as long: 40217 is `four, two, seventeen`."""
    number %= NUMBER_COUNT
    return ", ".join(_pair(pair) for pair in (number // 10_000, number // 100 % 100, number % 100))


def _pair(number: int) -> str:
    if number < len(_SMALL):
        return _SMALL[number]
    tens, ones = divmod(number, 10)
    return f"{_TENS[tens - 2]}-{_SMALL[ones]}" if ones else _TENS[tens - 2]


# fmt: off
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
# fmt: on

SENTENCES = (
    "The ferry leaves the harbour at dawn and returns before the evening tide.",
    "A light rain fell on the market while the traders packed their stalls.",
    "My neighbour repairs old clocks in a workshop behind the bakery.",
    "We followed the path along the river until the bridge came into view.",
    "The library stays open late on Thursdays, and the coffee there is free.",
    "She tuned the violin twice before the concert began.",
    "Your parcel has reached the depot and will be delivered tomorrow morning.",
    "The committee agreed to plant forty trees along the southern avenue.",
    "He left his umbrella on the train, as he does almost every week.",
    "Turn left at the fountain, then walk straight on for two hundred metres.",
    "The museum has a small room full of maps that nobody ever visits.",
    "Our flight was delayed, so we played cards on an upturned suitcase.",
    "The children built a raft from planks and empty barrels.",
    "Nothing smells better than bread that has just come out of the oven.",
    "The engineer checked every bolt before she signed the report.",
    "A grey cat slept on the warm roof of the delivery van.",
    "Please keep your ticket until you have left the station.",
    "The orchard gave more apples this autumn than in the last three years together.",
    "They painted the kitchen yellow because the window faces north.",
    "The doctor will see you in a few minutes.",
    "Snow had closed the mountain road, and the inn was full of travellers.",
    "The recipe asks for two lemons, but one large one is enough.",
    "His grandfather kept bees and sold the honey at the church door.",
    "The printer in the hall is out of paper again.",
    "From the top of the tower you can see both lakes and the old quarry.",
    "The choir practises on Mondays in the hall above the fire station.",
    "We counted seventeen herons on the far side of the marsh.",
    "The new timetable starts in March and adds a late bus on Fridays.",
    "A good map, dry socks and a bit of chocolate are all that you need.",
    "The lighthouse keeper wrote down the weather every day for thirty years.",
    "Her first novel was turned down by nine publishers and then sold a million copies.",
    "The lamp flickered once, and the whole street went dark.",
    "Can you hear the owl behind the barn?",
    "The gardener waters the roses early, before the sun gets strong.",
    "Two lanes of the motorway are closed for repairs until the weekend.",
    "The teacher drew a circle on the board and asked who could find its centre.",
    "Every Saturday the brothers row across the bay to buy fish.",
    "The wallet was found under a bench and handed in at the office.",
    "It took the whole village to pull the cart out of the ditch.",
    "What a relief it was to hear your voice on the telephone!",
)

GIVEN_NAMES = tuple(
    """
    Ada Agnes Alan Albert Alice Anna Arthur Barbara Bruno Clara Conrad Daniel David Dora Edgar Edith Edward Ella Emil
    Emma Eric Ernest Esther Eva Felix Flora Frances Frank George Grace Hannah Harold Harriet Helen Henry Hugo Ida Irene
    Isaac Ivan Jack Jacob James Jane Joan John Julia Karl Laura Leo Lewis Linda Louis Lucy Mabel Margaret Mark Martha
    """.split()
)
FAMILY_NAMES = tuple(
    """
    Abbot Archer Baker Barlow Bishop Brook Carter Chandler Clark Cook Cooper Dale Dyer Farmer Fisher Ford Foster Gardner
    Glover Grant Hale Hill Hunter Lake Mason Miller Palmer Parker Porter Potter Rivers Sawyer Shepherd Smith Stone Swan
    Taylor Turner Wade Walker Wells West Wood Wright
    """.split()
)
NAME_COUNT = len(GIVEN_NAMES) * len(FAMILY_NAMES)
