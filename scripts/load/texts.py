"""What a load test asks for: a built-in mix of texts or the lines of a file, new each time or repeated."""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol


@dataclass(frozen=True)
class Text:
    """One text to be spoken."""

    content: str
    length: str | None
    """Its class in the built-in mix; None for a line of a file."""
    repeated: bool = False
    """Whether it was asked for before in this run."""


@dataclass(frozen=True)
class LengthClass:
    """One part of the built-in mix."""

    share: float
    sentences: int


MIX = {
    "short": LengthClass(share=0.6, sentences=1),
    "medium": LengthClass(share=0.3, sentences=4),
    "long": LengthClass(share=0.1, sentences=20),
}


class Source(Protocol):
    """Where new texts come from: the class of the next text is drawn first, then a text of that class."""

    def draw_length(self) -> str | None: ...  # noqa: D102 - said above

    def compose(self, length: str | None) -> str: ...  # noqa: D102 - said above


class Mix:
    """The built-in mix: one, four or twenty sentences."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"mix {seed}")

    def draw_length(self) -> str:
        """Draw a class, each as often as its share says."""
        return self._rng.choices(list(MIX), [length.share for length in MIX.values()])[0]

    def compose(self, length: str | None) -> str:
        """Join as many different sentences as that class has."""
        assert length is not None  # noqa: S101 - only `draw_length` makes them
        return " ".join(self._rng.sample(SENTENCES, MIX[length].sentences))


class Lines:
    """The lines of a file, in their order, again and again."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = itertools.cycle(lines)

    def draw_length(self) -> None:
        """Return None: lines have no class."""

    def compose(self, length: str | None) -> str:
        """Return the next line."""
        return next(self._lines)


def supply(source: Source, *, seed: int, repeat: float, first_number: int) -> Iterator[Text]:
    """Give out texts without end; a share `repeat` of them, in each class, was given out before.

    All others begin with a number of their own, counted from `first_number`. It should differ from run to
    run, else a server that keeps finished audio knows every text of the second run.
    """
    rng = random.Random(f"repeat {seed}")
    given: defaultdict[str | None, list[Text]] = defaultdict(list)
    numbers = itertools.count(first_number)
    while True:
        length = source.draw_length()
        if given[length] and rng.random() < repeat:
            yield replace(rng.choice(given[length]), repeated=True)
            continue
        text = Text(f"Number {spell(next(numbers))}: {source.compose(length)}", length)
        given[length].append(text)
        yield text


NUMBERS = 100**3
"""How many different numbers `spell` knows."""


def spell(number: int) -> str:
    """Put a number into words, two digits at a time, all about as long: 40217 is `four, two, seventeen`."""
    number %= NUMBERS
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
