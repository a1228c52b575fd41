from __future__ import annotations

import pytest

from balancer.documents.xhtml import links, read


def text(body: str) -> str:
    return read(f"<html><head><title>Head</title></head><body>{body}</body></html>").text


@pytest.mark.parametrize(
    ("body", "spoken"),
    [
        ("<p>One\n  two.</p><p>Three.</p>", "One two.\n\nThree."),
        ("<h2>Heading</h2>Text", "Heading.\n\nText"),
        ("<h2>Really?</h2>", "Really?"),
        ("<h2>\u201cDone!\u201d</h2>", "\u201cDone!\u201d"),
        ("<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>", "a.\nb\n\nc."),
        ("<table><tr><th>x</th><th>y</th></tr><tr><td>1</td><td>2</td></tr></table>", "x, y.\n1, 2."),
        ("a<br/>b", "a\nb"),
        ("<pre>a\n  b</pre>", "a\nb"),
        ("A &amp; B &#8212; c&nbsp;d", "A & B \u2014 c\u00a0d"),
        ("a<script>b</script><style>c</style><svg><text>d</text></svg>e", "ae"),
        ('a<a epub:type="noteref" href="#n">1</a>.<aside epub:type="footnote">Note</aside>', "a."),
        ('a<span role="doc-pagebreak">12</span>b<span hidden="">c</span><i aria-hidden="true">d</i>', "ab"),
        ("<ruby>漢<rp>(</rp><rt>kan</rt><rp>)</rp></ruby>", "漢"),
        ("hy\u00adphen", "hyphen"),
        ("<!-- no -->yes", "yes"),
        ("", ""),
    ],
)
def test_what_is_spoken(body: str, spoken: str) -> None:
    assert text(body) == spoken


def test_the_title_is_the_first_heading_else_that_of_the_head() -> None:
    assert read("<title>Head</title><h2>The\n <i>Heading</i></h2>").title == "The Heading"
    assert read("<title>Head</title><p>x</p>").title == "Head"
    assert read("").title == ""


def test_elements_that_only_xml_can_close_so() -> None:
    page = read('<head><title/><script src="x"/></head><body><a id="p"/><i class="y" />Text.<br/>More.</body>')
    assert page.text == "Text.\nMore."


def test_a_page_of_which_the_end_is_missing() -> None:
    assert text("<div><p>Text <b>bold") == "Text bold"


def test_elements_that_are_nested_deeply() -> None:
    assert text("<i>" * 100_000 + "deep") == "deep"


def test_the_links_of_a_table_of_contents() -> None:
    page = '<nav epub:type="landmarks"><a href="x">X</a></nav><nav epub:type="toc"><a href="a.xhtml#b">A\n b</a></nav>'
    assert links(page) == [("a.xhtml#b", "A b")]
