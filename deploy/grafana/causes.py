"""Why did latency rise? Where the time goes, then one panel per cause."""

from __future__ import annotations

from deploy.grafana.model import Panel, Query, Row
from deploy.grafana.promql import OK, PROCESS, chosen, mean, quantile, rate, share, total

WHERE_TIME_GOES = Row(
    "Why did latency rise? 1: where the time goes",
    (
        Panel(
            "Mean latency by phase",
            "s",
            "Start here: the layer that grew says where to look. queue: too much work (backlog, refusals). "
            "run: full runs (device busy, batch), slower steps, other models' turns, or more work per "
            "request. prepare or reply: the front end (event loop, CPU), or large messages.",
            (Query(mean("pxserve_request_phase_seconds", "phase"), "{{phase}}"),),
            width=12,
            stacked=True,
        ),
        Panel(
            "Mean latency by model",
            "s",
            "One model or all? All at once points at the device, the CPU or the queue; one at its callers.",
            (Query(mean("pxserve_request_seconds", "model", more=OK), "{{model}}"),),
            width=12,
        ),
    ),
)

CAUSES = Row(
    "Why did latency rise? 2: one panel per cause",
    (
        Panel(
            "Queueing: wait for the first run",
            "s",
            "p50 and p99 from admission on. Both high: overloaded. Only p99: large requests wait for room, "
            "which is how least-remaining-work-first treats them.",
            tuple(Query(quantile(q, "pxserve_queue_seconds"), f"p{q * 100:g}") for q in (0.5, 0.99)),
        ),
        Panel(
            "Backlog by replica",
            "s",
            "One replica high, others low: connections are not balanced. All high: add replicas.",
            (Query(chosen("pxserve_backlog_seconds", among=PROCESS), "{{instance}}"),),
            limits=(2, 30),
        ),
        Panel(
            "Batch: rows of a run, of its capacity",
            "percentunit",
            "How full runs are. Near 100 %: each step takes as long as a full run, for small requests too, "
            "and more work would queue. Low while latency is high: batching is not the reason.",
            (
                Query(
                    f"({mean('pxserve_batch_rows', 'model, component')}) / on (model, component) "
                    f"max by (model, component) ({chosen('pxserve_rows_capacity')})",
                    "{{model}} {{component}}",
                ),
            ),
            most=1,
        ),
        Panel(
            "Step time",
            "s",
            "Mean of one network run and its advance. Rising with fuller batches is normal; rising at the "
            "same batch means a slower device: clocks, a neighbour on the same cores or GPU.",
            (
                Query(
                    mean("pxserve_step_seconds", "model, component, phase"),
                    "{{model}} {{component}} {{phase}}",
                ),
            ),
        ),
        Panel(
            "Time between steps of a row",
            "s",
            "p90 by model. Above the step time: the row waits for the turns of other models or of rows with "
            "less work left.",
            (
                Query(quantile(0.9, "pxserve_step_interval_seconds", "model"), "{{model}}"),
                Query(quantile(0.9, "pxserve_inter_token_seconds", "model"), "{{model}} (tokens)"),
            ),
        ),
        Panel(
            "Work per answered row",
            "none",
            "Network evaluations per answered row. A rise means that callers ask for more: steps, guidance, "
            "particles. Where step time did not rise with it, nothing is slower; requests are larger.",
            (
                Query(
                    share(
                        rate("pxserve_network_evaluations_total", "model"),
                        rate("pxserve_rows_total", "model"),
                    ),
                    "{{model}}",
                ),
            ),
        ),
        Panel(
            "Wasted work",
            "percentunit",
            "Device seconds of requests that got no answer, as a share of all, by cause. cancelled: callers "
            "lose patience; late: deadlines pass while work runs; failed: a network's faults.",
            (
                Query(
                    f"{rate('pxserve_wasted_device_seconds_total', 'cause')} / on () group_left () "
                    f"({rate('pxserve_device_seconds_total')} > 0)",
                    "{{cause}}",
                ),
            ),
            stacked=True,
            most=1,
        ),
        Panel(
            "Calls without an answer, by reason",
            "reqps",
            "QUEUE_FULL: overload. DEADLINE_INFEASIBLE: callers ask for more than their deadline allows. "
            "DEADLINE_MISSED: predictions were too good. INTERNAL: the log has the error ids. "
            "docs/errors.md has all reasons.",
            (Query(rate("pxserve_rejections_total", "reason"), "{{reason}}"),),
            stacked=True,
        ),
        Panel(
            "Device busy",
            "percentunit",
            "Share of the time in which the engine runs networks. 100 %: saturated, so that latency depends "
            "on how full runs are and on the backlog. Low while latency is high: look at phases prepare "
            "and reply.",
            (Query(rate("pxserve_step_seconds_sum", "instance", among=PROCESS), "{{instance}}"),),
            most=1,
            limits=(0.8, 0.95),
        ),
        Panel(
            "CPU, of the cores that it may use",
            "percentunit",
            "The server's process and, with --engine process, the engine's. Near 100 % on a CPU device is "
            "normal under load; with a GPU it means that the host is the bottleneck.",
            (
                Query(
                    f"{rate('process_cpu_seconds_total', 'instance', among=PROCESS)} / "
                    f"{total('pxserve_cpu_cores', 'instance', among=PROCESS)}",
                    "server {{instance}}",
                ),
                Query(
                    f"{rate('pxserve_engine_process_cpu_seconds_total', 'instance', among=PROCESS)} / "
                    f"{total('pxserve_cpu_cores', 'instance', among=PROCESS)}",
                    "engine {{instance}}",
                ),
            ),
            stacked=True,
            most=1,
            limits=(0.8, 0.95),
        ),
        Panel(
            "Waiting for a core",
            "none",
            "Threads that were ready to run and got no core, on average. Above 1 while latency is high: the "
            "machine is shared with somebody, or the container's quota is used up. Steps get longer by it.",
            (
                Query(
                    rate("pxserve_cpu_wait_seconds_total", "instance, process", among=PROCESS),
                    "{{process}} {{instance}}",
                ),
            ),
            stacked=True,
            limits=(1, 4),
        ),
        Panel(
            "Event loop lag",
            "s",
            "p99 by which the gRPC front end is late. Above 10 ms: it gets no core, or converts large "
            "messages; use --engine process, or more cores.",
            (
                Query(
                    quantile(0.99, "pxserve_event_loop_lag_seconds", "instance", among=PROCESS),
                    "{{instance}}",
                ),
            ),
            limits=(0.01, 0.1),
        ),
        Panel(
            "Memory and loads",
            "bytes",
            "Resident memory by replica; a model that loads takes memory and, for its warm-up, device time. "
            "Blue lines are starts.",
            (
                Query(chosen("process_resident_memory_bytes", among=PROCESS), "{{instance}}"),
                Query(total("pxserve_model_memory_bytes", "kind"), "models: {{kind}}"),
            ),
        ),
    ),
)
