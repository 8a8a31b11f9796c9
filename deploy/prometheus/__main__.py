"""Writes the rules as the Prometheus operator takes them, into the component for Kubernetes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent
RULES = ("recording.rules.yml", "alerts.rules.yml")
OPERATED = FOLDER.parent / "kubernetes" / "components" / "monitoring" / "prometheusrule.yaml"
HEAD = "# Written by `python -m deploy.prometheus` from deploy/prometheus/rules; a test keeps it fresh.\n"


class _Dumper(yaml.SafeDumper):
    """Texts of several lines stay readable."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def operated() -> str:
    """A PrometheusRule with all groups."""
    groups: list[Any] = []
    for name in RULES:
        groups += yaml.safe_load((FOLDER / "rules" / name).read_text(encoding="utf-8"))["groups"]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "pxserve"},
        "spec": {"groups": groups},
    }
    return HEAD + yaml.dump(rule, Dumper=_Dumper, sort_keys=False, width=200)


if __name__ == "__main__":
    OPERATED.write_text(operated(), encoding="utf-8")
    sys.stdout.write(f"{OPERATED}\n")
