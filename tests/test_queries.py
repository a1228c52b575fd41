"""The queries of the Grafana dashboard and the alerts of docs/metrics.md ask for metrics and labels that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
from promql_parser import AggregateExpr, BinaryExpr, MatchOp, VectorSelector

from balancer import errors
from balancer.metrics import SPEECH_SURFACES
from tests.support.harness import ROOT
from tests.support.metric_samples import exposed_labels

DASHBOARD = json.loads((ROOT / "deploy/grafana-dashboard.json").read_text())
METRICS = (ROOT / "docs/metrics.md").read_text()

ROWS = ["Traffic", "Latency", "Queue", "Workers", "Streams", "Cache", "Jobs", "Refusals"]

DASHBOARD_QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
ALERTS = [
    line
    for block in re.findall(r"^```\n(.*?)^```", METRICS, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line and not line.startswith("#")
]

PARTS = ("expr", "args", "vector_selector", "lhs", "rhs", "param")
"""Attributes in which an expression of PromQL has others."""


def parts(expression: Any) -> Iterator[Any]:
    """The expression, and all of those that it is made of."""
    yield expression
    for name in PARTS:
        found = getattr(expression, name, None)
        for part in found if isinstance(found, list) else [found]:
            if part is not None:
                yield from parts(part)


def parsed(query: str) -> Any:
    return promql_parser.parse(query.replace("$__rate_interval", "5m"))


@pytest.fixture(scope="module")
def exposed() -> dict[str, frozenset[str]]:
    return dict(exposed_labels())


def test_there_are_alerts() -> None:
    assert len(ALERTS) > 10


@pytest.mark.parametrize("query", [*DASHBOARD_QUERIES, *ALERTS])
def test_metrics_and_labels_exist(query: str, exposed: dict[str, frozenset[str]]) -> None:
    expressions = list(parts(parsed(query)))
    selectors = [part for part in expressions if isinstance(part, VectorSelector)]
    assert selectors
    for selector in selectors:
        assert str(selector.name) in exposed
        for matcher in selector.matchers.matchers:
            assert matcher.name in exposed[str(selector.name)], f"{selector.name} has no label {matcher.name}"
    labels = frozenset.union(*(exposed[str(selector.name)] for selector in selectors))
    for part in expressions:
        if isinstance(part, AggregateExpr | BinaryExpr) and part.modifier is not None:
            assert set(grouping(part)) <= labels


def grouping(part: AggregateExpr | BinaryExpr) -> list[str]:
    """The labels that an aggregation keeps, or by which two sides are matched."""
    modifier: Any = part.modifier
    if isinstance(part, BinaryExpr):
        modifier = modifier.matching
    return [] if modifier is None else list(modifier.labels)


@pytest.mark.parametrize("query", [*DASHBOARD_QUERIES, *ALERTS])
def test_values_of_labels_are_documented(query: str) -> None:
    codes = {error.code for error in vars(errors).values() if isinstance(error, type) and hasattr(error, "code")}
    known = set(re.findall(r"`([\w/-]+)`", METRICS)) | SPEECH_SURFACES | codes
    for part in parts(parsed(query)):
        if isinstance(part, VectorSelector):
            for matcher in part.matchers.matchers:
                if matcher.name != "status":
                    values = matcher.value.split("|") if matcher.op == MatchOp.Re else [matcher.value]
                    assert set(values) <= known


def test_the_dashboard_can_be_imported_and_asks_one_data_source() -> None:
    [variable] = DASHBOARD["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    for source in [panel["datasource"] for panel in panels] + [
        target["datasource"] for panel in panels for target in panel["targets"]
    ]:
        assert source == {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)


def test_the_dashboard_has_its_rows() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert [row for row in rows if row in ROWS] == ROWS


def test_names_in_legends_are_labels(exposed: dict[str, frozenset[str]]) -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            names = [str(part.name) for part in parts(parsed(target["expr"])) if isinstance(part, VectorSelector)]
            labels = frozenset.union(*(exposed[name] for name in names))
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels
