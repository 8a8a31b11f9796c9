"""The queries of dashboards and rules, and what they name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.rules.yml"))

COMPARISON = re.compile(r"^(.+?) (?:>|<|==|!=|>=|<=) [0-9.]+$")
ABSENT = re.compile(r"^absent\((.+)\)$")
SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*)\}|([a-zA-Z_:][a-zA-Z0-9_:]*)")
MATCHER = re.compile(r'([a-zA-Z_]+)\s*(?:=~|!~|!=|=)\s*"')
GROUPING = re.compile(r"\b(?:by|on|group_left|group_right|without|ignoring)\s*\(([^)]*)\)")
SUFFIX = re.compile(r"_(bucket|sum|count)$")
WORDS = {
    "sum", "max", "min", "rate", "increase", "changes", "histogram_quantile", "sum_over_time", "absent",
    "by", "on", "group_left", "and", "or", "unless",
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """A recording or alerting rule."""

    name: str
    expr: str
    alert: dict[str, Any] | None  # the whole rule, where it is one

    def sides(self) -> list[str]:
        """What an alert compares; what must have values on a server that is well."""
        if ABSENT.match(self.expr):
            return [ABSENT.sub(r"\1", self.expr)]
        lines = [line.strip() for line in self.expr.splitlines()]
        compared = [found[1] for found in map(COMPARISON.match, lines) if found is not None]
        others = [
            line for line in lines if line not in ("and", "or", "(", ")") and not COMPARISON.match(line)
        ]
        assert all(line.startswith(("and on (", "or on (")) for line in others), others
        return compared


def dashboards() -> list[dict[str, Any]]:
    """All of them, parsed."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS]


def panels() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Dashboard and panel, rows left out."""
    for dashboard in dashboards():
        for panel in dashboard["panels"]:
            if panel["type"] != "row":
                yield dashboard, panel


def rules() -> list[Rule]:
    """All of them, in order."""
    found = []
    for path in RULES:
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                name = rule.get("record") or rule["alert"]
                found.append(Rule(name, rule["expr"].strip(), rule if "alert" in rule else None))
    return found


def named(expr: str) -> Iterator[tuple[str, set[str]]]:
    """Metrics of a query, each with the labels that are matched."""
    plain = GROUPING.sub(" ", re.sub(r"\[[^\]]*\]", "", expr))
    for found in SELECTOR.finditer(re.sub(r'"[^"]*"', '""', plain)):
        name = found[1] or found[3]
        if name not in WORDS:
            yield name, set(MATCHER.findall(found[2] or ""))


def grouped(expr: str) -> set[str]:
    """Labels that a query sums or joins by."""
    return {label.strip() for labels in GROUPING.findall(expr) for label in labels.split(",")} - {""}
