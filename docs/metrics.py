"""Writes docs/metrics.md from the table of metrics, so that the page says what a scrape shows."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from serving.telemetry import table
from serving.telemetry.table import TABLE, Metric

PAGE = Path(__file__).resolve().parent / "metrics.md"
SECTION = re.compile(r"^# -- (.+?) -+$|^([A-Z_]+) = (?:Metric|_engine)\(", re.M)

HEAD = """# Metrics

Prometheus scrapes `/metrics` (flag `--metrics`, default 127.0.0.1:8502). Written by `python docs/metrics.py`
from `serving/telemetry/table.py`; a test keeps it fresh. [operations.md](operations.md) says what to look at
when.

- Units are in the names. A counter ends in `_total`; a histogram has `_bucket`, `_sum` and `_count`; a
  summary has `_sum` and `_count`.
- Label values are bounded: `model` is the name of a package that is loaded (else empty), `token` the name of
  a caller's token, each at most 256 different ones, then `other`; `operation`, `code`, `reason`, `phase`,
  `kind`, `cause` and `state` are fixed lists. No text of a request becomes a label.
- Counters of a model begin at zero when it becomes ready, so that the first event is an increase.
- The engine reports four times a second, and twenty milliseconds after it became idle.
- Scraped as OpenMetrics (Prometheus does so by itself), `pxserve_request_seconds` and
  `pxserve_first_event_seconds` carry exemplars with the `trace_id` of calls whose trace is recorded, here or
  by the caller (`traceparent`). Prometheus stores them with `--enable-feature=exemplar-storage`.
"""

TAIL = """
## From prometheus_client

`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`,
`process_open_fds`, `process_max_fds`, `process_start_time_seconds`, and `python_gc_*`. With
`--engine process` the engine's own process has the same as `pxserve_engine_process_*`.
"""


def sections() -> list[tuple[str, list[Metric]]]:
    """The table's metrics under the headings of its source."""
    source = Path(table.__file__).read_text(encoding="utf-8")
    found: list[tuple[str, list[Metric]]] = []
    for heading, name in SECTION.findall(source):
        if heading:
            found.append((heading, []))
        else:
            found[-1][1].append(getattr(table, name))
    return found


def row(metric: Metric) -> str:
    """One line of a table."""
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    buckets = f"; buckets {metric.buckets[0]:g} to {metric.buckets[-1]:g}" if metric.buckets else ""
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help}{buckets} |"


def page() -> str:
    """The whole page; every metric of the table is on it."""
    lines = [HEAD]
    shown: list[Metric] = []
    for heading, metrics in sections():
        lines += [f"## {heading[0].upper()}{heading[1:]}", "", "| metric | kind | labels | what it is |"]
        lines += ["|---|---|---|---|", *(row(metric) for metric in metrics), ""]
        shown += metrics
    assert sorted(metric.name for metric in shown) == sorted(metric.name for metric in TABLE)
    return "\n".join(lines).rstrip("\n") + "\n" + TAIL


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
