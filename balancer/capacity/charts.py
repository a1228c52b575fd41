"""The charts of a report, as SVG within a page: without scripts, fonts or pictures from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import leather

WIDTH, HEIGHT = 720, 380
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df")
HEADROOM = 1.05

Points = Sequence[tuple[float, float | None]]
"""Pairs of x and y. Those without y are left out."""


def lines(title: str, x_title: str, y_title: str, series: Mapping[str, Points]) -> str:
    """A chart with a line for each series that has points, as an SVG element; both axes begin at 0."""
    drawn = {name: known for name, points in series.items() if (known := [(x, y) for x, y in points if y is not None])}
    chart = leather.Chart(title)
    chart.add_x_axis(name=x_title, tick_formatter=_tick)
    chart.add_y_axis(name=y_title, tick_formatter=_tick)
    for axis, add_scale in enumerate((chart.add_x_scale, chart.add_y_scale)):
        largest = max((float(point[axis]) for points in drawn.values() for point in points), default=0.0)
        add_scale(0, HEADROOM * largest or 1)
    for (name, points), colour in zip(drawn.items(), COLOURS, strict=False):
        chart.add_line(sorted(points), name=name, stroke_color=colour)
    if not drawn:
        chart.add_dots([(0, 0)], fill_color="none")
    svg: str = chart.to_svg(width=WIDTH, height=HEIGHT)
    # Scaled by the page, instead of a size of its own.
    return svg.replace(f'width="{WIDTH}" height="{HEIGHT}"', f'viewBox="0 0 {WIDTH} {HEIGHT}"', 1)


def _tick(value: float | Decimal, _index: int, _count: int) -> str:
    number = float(value)
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:,.0f}"
