"""Latency of each model: distribution, operations, phases, queue, streams, predictions, objectives."""

from __future__ import annotations

from deploy.grafana.model import Dashboard, Panel, Query, Row
from deploy.grafana.promql import ANSWERED, INSTANCE, JOB, MODELS, OK, buckets, mean, quantile, rate, share

HALF_AND_TAIL = (0.5, 0.9, 0.99)

ANSWERS = Row(
    "Answers",
    (
        Panel(
            "Latency of answered unary calls",
            "s",
            "The whole distribution. Two bands are two kinds of request (few and many steps, small and "
            "large); a band that moves up is a real change. Pink dots are single calls with their trace.",
            (Query(buckets("pxserve_request_seconds", ANSWERED), "{{le}}", exemplars=True),),
            "heatmap",
            12,
            10,
        ),
        Panel(
            "p99 by operation",
            "s",
            "Which operation is slow? Scoring and completing cost more than sampling.",
            (Query(quantile(0.99, "pxserve_request_seconds", "operation", OK), "{{operation}}"),),
            width=12,
            height=10,
        ),
        Panel(
            "p50, p90 and p99 by model",
            "s",
            "Compare a model with itself an hour ago, not with others.",
            tuple(
                Query(
                    quantile(q, "pxserve_request_seconds", "model", ANSWERED), f"{{{{model}}}} p{q * 100:g}"
                )
                for q in HALF_AND_TAIL
            ),
            width=12,
        ),
        Panel(
            "Calls by model and code",
            "reqps",
            "A code that appears beside OK explains a change of load.",
            (Query(rate("pxserve_request_seconds_count", "model, code"), "{{model}} {{code}}"),),
            width=12,
        ),
    ),
)

PARTS = Row(
    "Parts of it",
    (
        Panel(
            "Mean seconds by phase",
            "s",
            "prepare: parsing, resolving, admission. queue: until the first run. run: until the last. reply: "
            "conversion; of streams, sending the rest.",
            (Query(mean("pxserve_request_phase_seconds", "model, phase"), "{{model}} {{phase}}"),),
            stacked=True,
        ),
        Panel(
            "Queue time",
            "s",
            "p50 and p99 by model, requests that never ran included.",
            tuple(
                Query(quantile(q, "pxserve_queue_seconds", "model"), f"{{{{model}}}} p{q * 100:g}")
                for q in (0.5, 0.99)
            ),
        ),
        Panel(
            "Streams: time to the first event",
            "s",
            "p90 by model and kind of event.",
            (Query(quantile(0.9, "pxserve_first_event_seconds", "model, kind"), "{{model}} {{kind}}"),),
        ),
    ),
)

PROMISES = Row(
    "Promises",
    (
        Panel(
            "Actual over predicted latency",
            "none",
            "p50 and p90 by model. 1 is exact. Above 2: admission lets requests in that will be late. Below "
            "0.5: it refuses requests that would have made it.",
            tuple(
                Query(quantile(q, "pxserve_latency_prediction_ratio", "model"), f"{{{{model}}}} p{q * 100:g}")
                for q in (0.5, 0.9)
            ),
        ),
        Panel(
            "Deadlines",
            "reqps",
            "INFEASIBLE: refused at once, which costs nothing. MISSED: found out too late, which wastes "
            "work; it should stay near zero.",
            (Query(rate("pxserve_rejections_total", "reason", 'reason=~"DEADLINE_.+"'), "{{reason}}"),),
        ),
        Panel(
            "Slower than the objective of 5 s",
            "percentunit",
            "By model, of answered unary calls. The objective is 1 %.",
            (
                Query(
                    "1 - "
                    + share(
                        rate("pxserve_request_seconds_bucket", "model", f'{ANSWERED},le="5.0"'),
                        rate("pxserve_request_seconds_count", "model", ANSWERED),
                    ),
                    "{{model}}",
                ),
            ),
            limits=(0.01, 0.144),
        ),
        Panel(
            "Burn of the budget: calls without an answer",
            "none",
            "How many times faster than allowed the budget of 0.1 % is used. 1: gone after the 30 days that "
            "it is meant for. 14.4 for an hour pages somebody.",
            tuple(
                Query(f'job:pxserve_errors:ratio_rate{w}{{job=~"$job"}} / 0.001', f"{{{{job}}}} {w}")
                for w in ("5m", "1h", "6h", "3d")
            ),
            width=12,
            limits=(1, 14.4),
        ),
        Panel(
            "Burn of the budget: slow answers",
            "none",
            "The same for the 1 % that may take longer than 5 s.",
            tuple(
                Query(f'job:pxserve_slow:ratio_rate{w}{{job=~"$job"}} / 0.01', f"{{{{job}}}} {w}")
                for w in ("5m", "1h", "6h", "3d")
            ),
            width=12,
            limits=(1, 14.4),
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="pxserve-latency",
    title="pxserve / latency by model",
    what="How long calls take, which part of it is what, and whether predictions and objectives hold.",
    rows=(ANSWERS, PARTS, PROMISES),
    variables=(JOB, INSTANCE, MODELS),
)
