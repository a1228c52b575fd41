from __future__ import annotations

from balancer.documents.markdown_chapters import read


def chapters(text: str) -> list[tuple[str, str]]:
    return [(chapter.title, chapter.text) for chapter in read(text).chapters]


def test_headings_begin_chapters_and_the_first_is_the_title() -> None:
    text = "# The *Book*\n\nPreface.\n\n## One\n\nFirst.\n\n### Below\n\nMore.\n\n## Two\n\nSecond."
    assert read(text).title == "The Book"
    assert chapters(text) == [
        ("The Book", "The Book.\n\nPreface."),
        ("One", "One.\n\nFirst.\n\nBelow.\n\nMore."),
        ("Two", "Two.\n\nSecond."),
    ]


def test_chapters_of_the_first_level() -> None:
    assert [title for title, _ in chapters("before\n\n# One\n\na\n\n# Two\n\nb")] == ["", "One", "Two"]
    assert read("# One\n\na\n\n# Two\n\nb").title == ""


def test_underlined_headings() -> None:
    assert [title for title, _ in chapters("One\n===\n\na\n\nTwo\n===\n\nb")] == ["One", "Two"]


def test_the_title_of_the_front_matter() -> None:
    document = read('---\nauthor: Ada\ntitle: "On Engines"\n---\n\nText.')
    assert document.title == "On Engines"
    assert [chapter.text for chapter in document.chapters] == ["Text."]


def test_a_text_without_headings_is_one_chapter() -> None:
    assert chapters("Just a text.") == [("", "Just a text.")]
    assert chapters("") == []


def test_links_whose_targets_stand_elsewhere() -> None:
    assert chapters("# One\n\nSee [this][1].\n\n# Two\n\n[1]: https://example.org")[0][1] == "One.\n\nSee this."


def test_lists_tables_code_and_tags_are_speakable() -> None:
    text = "- a\n- [b](https://x.y)\n\n|c|d|\n|-|-|\n|1|2|\n\n```\n# no heading\n```\n\n<b>e</b>"
    [(_, spoken)] = chapters(text)
    assert spoken.split("\n") == ["a.", "b.", "", "", "c, d.", "1, 2.", "", "", "# no heading.", "", "e"]
