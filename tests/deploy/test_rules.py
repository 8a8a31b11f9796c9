"""Rules: promtool accepts them; every alert fires when it should, is silent when not, and is explained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.prometheus.__main__ import OPERATED, operated
from tests.deploy.prometheus import FOLDER, ROOT, promtool
from tests.deploy.queries import RULES, Rule, rules

ALERTS = [rule for rule in rules() if rule.alert is not None]
STORIES = yaml.safe_load((FOLDER / "tests" / "alerts.test.yml").read_text())["tests"]
RUNBOOK = ROOT / "docs" / "operations.md"


def told(story: dict[str, Any]) -> str:
    """All that a story expects to fire."""
    return str(
        [test["exp_samples"] for test in story.get("promql_expr_test", ())]
        + [test["alertname"] for test in story.get("alert_rule_test", ()) if test["exp_alerts"]]
    )


def test_promtool_accepts_rules_and_configuration() -> None:
    checked = promtool("check", "rules", *RULES)
    assert checked.returncode == 0, checked.stderr
    checked = promtool("check", "config", FOLDER / "prometheus.yml")
    assert checked.returncode == 0, checked.stderr


def test_the_rules_for_the_prometheus_operator_are_the_same() -> None:
    assert OPERATED.read_text(encoding="utf-8") == operated(), "run `python -m deploy.prometheus`"


def test_alerts_fire_in_the_stories_that_they_are_for_and_in_no_other() -> None:
    tested = promtool("test", "rules", FOLDER / "tests" / "alerts.test.yml")
    assert tested.returncode == 0, tested.stderr + tested.stdout


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule.name)
def test_every_alert_has_a_story_in_which_it_fires(rule: Rule) -> None:
    assert any(re.search(rf"\b{rule.name}\b", told(story)) for story in STORIES)


def test_one_story_is_of_a_healthy_server_with_every_metric_that_alerts_read() -> None:
    healthy = next(story for story in STORIES if story["name"].startswith("a healthy server"))
    assert {test["expr"]: test["exp_samples"] for test in healthy["promql_expr_test"]}["ALERTS"] == []
    given = " ".join(series["series"] for series in healthy["input_series"])
    for rule in rules():
        for name in re.findall(r"\b(?:pxserve_|process_|DCGM_)\w+|\bup\b", rule.expr):
            assert name in given or re.search(rf":{name}:", rule.expr), f"{rule.name}: {name}"


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule.name)
def test_every_alert_says_how_urgent_it_is_and_where_it_is_explained(rule: Rule) -> None:
    assert rule.alert is not None
    assert rule.alert["labels"] == {"severity": rule.alert["labels"]["severity"]}
    assert rule.alert["labels"]["severity"] in ("page", "ticket")
    notes = rule.alert["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert len(notes["summary"]) < 120
    page, _, anchor = notes["runbook_url"].partition("#")
    assert ROOT / page == RUNBOOK
    assert anchor == rule.name.lower()


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule.name)
def test_the_runbook_has_a_section_for_every_alert(rule: Rule) -> None:
    sections = re.split(r"^### ", RUNBOOK.read_text(encoding="utf-8"), flags=re.M)
    section = next((text for text in sections if text.startswith(f"{rule.name}\n")), "")
    for part in ("**Means.**", "**Look at.**", "**Do.**"):
        assert part in section, f"docs/operations.md: ### {rule.name} lacks {part}"


def test_the_runbook_explains_no_alert_that_does_not_exist() -> None:
    headings = re.findall(r"^### (Pxserve\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.M)
    assert sorted(headings) == sorted(rule.name for rule in ALERTS)


def test_panels_that_the_runbook_names_exist() -> None:
    from tests.deploy.queries import panels

    titles = {panel["title"] for _, panel in panels()}
    for named in re.findall(r"«(.+?)»", RUNBOOK.read_text(encoding="utf-8").replace("\n", " ")):
        assert named in titles, named


def test_records_are_used() -> None:
    used = " ".join(rule.expr for rule in rules())
    used += "".join(path.read_text() for path in Path(ROOT / "deploy" / "grafana" / "dashboards").iterdir())
    for rule in rules():
        if rule.alert is None:
            assert re.search(rf"{re.escape(rule.name)}\b", used.replace(f"record: {rule.name}", "")), (
                rule.name
            )
