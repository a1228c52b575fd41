"""The charts of a report, as SVG within a page: without scripts, fonts or pictures from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

import pygal
from pygal.style import Style

STYLE = Style(
    background="transparent",
    plot_background="transparent",
    foreground="#333",
    foreground_strong="#111",
    foreground_subtle="#888",
    colors=("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df"),
    font_family="system-ui, sans-serif",
    label_font_size=13,
    major_label_font_size=13,
    legend_font_size=14,
    title_font_size=17,
    tooltip_font_size=13,
)
WIDTH, HEIGHT = 720, 380

Points = Sequence[tuple[float, float | None]]
"""Pairs of x and y; without y, the line has a gap."""


def lines(title: str, x_title: str, y_title: str, series: Mapping[str, Points], *, stroke: bool = True) -> str:
    """A chart with a line for each series, as an SVG element."""
    chart = pygal.XY(
        title=title,
        x_title=x_title,
        y_title=y_title,
        style=STYLE,
        width=WIDTH,
        height=HEIGHT,
        stroke=stroke,
        js=(),
        legend_at_bottom=True,
        legend_at_bottom_columns=len(series),
        dots_size=3,
        include_x_axis=True,
        disable_xml_declaration=True,
        explicit_size=False,
        truncate_legend=-1,
        x_value_formatter=_number,
        value_formatter=_number,
    )
    for name, points in series.items():
        chart.add(name, [(x, y) for x, y in points if y is not None])
    chart.add_xml_filter(_without_scripts)
    svg: str = chart.render(is_unicode=True)
    return svg


def _without_scripts(root: Element) -> Element:
    """The chart without pygal's settings for its own script, which is left out."""
    for parent in list(root.iter()):
        for script in [child for child in parent if str(child.tag).rpartition("}")[2] == "script"]:
            parent.remove(script)
    return root


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
