from balancer.capacity.charts import Points, lines


def test_a_chart_has_its_series_and_titles() -> None:
    series: dict[str, Points] = {"p50": [(1, 0.5), (2, 0.7)], "p90": [(1, 0.9)], "p95": [(1, None)]}
    svg = lines("Latency <all>", "requests a second", "seconds", series)
    assert all(f">{text}<" in svg for text in ("Latency &lt;all&gt;", "requests a second", "seconds", "p50", "p90"))
    assert ">p95<" not in svg  # it has no point


def test_a_chart_of_one_point_and_one_of_none_are_drawn() -> None:
    for points in ([(3.0, 0.0)], []):
        assert lines("One", "x", "y", {"p50": points}).startswith("<svg viewBox=")
