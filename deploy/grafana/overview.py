"""The overview: is it well, what do callers see, and why did latency rise?"""

from __future__ import annotations

from deploy.grafana.causes import CAUSES, WHERE_TIME_GOES
from deploy.grafana.model import Dashboard, Panel, Query, Row
from deploy.grafana.promql import (
    ANSWERED,
    INSTANCE,
    JOB,
    MODELS,
    PROCESS,
    chosen,
    quantile,
    rate,
    share,
    total,
)

FAULTS = 'reason=~"INTERNAL|DEVICE_LOST|QUEUE_FULL|DEADLINE_MISSED|UNLOADING|DRAINING"'

IS_IT_WELL = Row(
    "Is it well?",
    (
        Panel(
            "Replicas ready",
            "none",
            "How many processes accept work. Compare with how many there should be.",
            (Query(total("pxserve_ready", among=PROCESS)),),
            "stat",
            4,
            4,
        ),
        Panel(
            "Models failed",
            "none",
            "Versions that did not load. Anything but 0: ListModels and the log say why.",
            (Query(total("pxserve_models", more='state="failed"', among=PROCESS)),),
            "stat",
            4,
            4,
            limits=(1, 5),
        ),
        Panel(
            "Calls per second",
            "reqps",
            "All calls, refused ones too.",
            (Query(rate("pxserve_request_seconds_count")),),
            "stat",
            4,
            4,
        ),
        Panel(
            "Calls without an answer",
            "percentunit",
            "Failed, turned away or late, as a share of all. The objective is 0.1 %.",
            (
                Query(
                    share(
                        rate("pxserve_rejections_total", more=FAULTS), rate("pxserve_request_seconds_count")
                    )
                ),
            ),
            "stat",
            4,
            4,
            limits=(0.001, 0.0144),
        ),
        Panel(
            "p99 latency, unary",
            "s",
            "Of answered calls. The objective is 99 % within 5 s.",
            (Query(quantile(0.99, "pxserve_request_seconds", more=ANSWERED)),),
            "stat",
            4,
            4,
            limits=(2, 5),
        ),
        Panel(
            "Backlog",
            "s",
            "Predicted device time of all admitted work, of the fullest replica: about what a new request "
            "waits. Scale out where it stays above 2 s.",
            (Query(f"max({chosen('pxserve_backlog_seconds', among=PROCESS)})"),),
            "stat",
            4,
            4,
            limits=(2, 30),
        ),
    ),
)

WHAT_CALLERS_SEE = Row(
    "What callers see",
    (
        Panel(
            "Calls",
            "reqps",
            "By operation. A rise here explains most rises of latency. A fall does not speak against load: "
            "callers that wait for their answers ask less often when they are slow.",
            (Query(rate("pxserve_request_seconds_count", "operation"), "{{operation}}"),),
        ),
        Panel(
            "Latency of answered unary calls",
            "s",
            "p50 and p99 rising together: everything became slower, or requests ask for more. Only p99: "
            "queueing, or one model. The dots are single calls; they lead to their traces.",
            tuple(
                Query(
                    quantile(q, "pxserve_request_seconds", more=ANSWERED),
                    f"p{q * 100:g}",
                    exemplars=q == 0.99,
                )
                for q in (0.5, 0.9, 0.99)
            ),
        ),
        Panel(
            "Time to the first preview, token or row of a stream",
            "s",
            "p90, by what came first.",
            (Query(quantile(0.9, "pxserve_first_event_seconds", "kind"), "{{kind}}"),),
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="pxserve-overview",
    title="pxserve / overview",
    what="Is it well, what do callers see, and why did latency rise? docs/operations.md walks through it.",
    rows=(IS_IT_WELL, WHAT_CALLERS_SEE, WHERE_TIME_GOES, CAUSES),
    variables=(JOB, INSTANCE, MODELS),
)
