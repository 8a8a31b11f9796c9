"""The engine: ticks, batches, rows, work and waste."""

from __future__ import annotations

from deploy.grafana.model import Dashboard, Panel, Query, Row
from deploy.grafana.promql import (
    INSTANCE,
    JOB,
    MODELS,
    PROCESS,
    buckets,
    chosen,
    mean,
    quantile,
    rate,
    share,
    total,
)

TICKS = Row(
    "Ticks",
    (
        Panel(
            "Network runs per second",
            "ops",
            "By component. Few long runs or many short ones?",
            (
                Query(
                    rate("pxserve_step_seconds_count", "model, component, phase"),
                    "{{model}} {{component}} {{phase}}",
                ),
            ),
        ),
        Panel(
            "Step time",
            "s",
            "p50 and p99. A p99 far above p50 with the same batch: something else takes the device or cores.",
            tuple(
                Query(
                    quantile(q, "pxserve_step_seconds", "model, component"),
                    f"{{{{model}}}} {{{{component}}}} p{q * 100:g}",
                )
                for q in (0.5, 0.99)
            ),
        ),
        Panel(
            "Device time by model",
            "percentunit",
            "Share of the time in which networks of each model ran. Their sum is how busy the device is; "
            "models that compete get equal shares.",
            (Query(rate("pxserve_step_seconds_sum", "model"), "{{model}}"),),
            stacked=True,
            most=1,
        ),
    ),
)

BATCHES = Row(
    "Batches",
    (
        Panel(
            "Rows of a run",
            "none",
            "Mean by component: what batching achieves.",
            (Query(mean("pxserve_batch_rows", "model, component"), "{{model}} {{component}}"),),
        ),
        Panel(
            "Rows of a run, most often",
            "none",
            "The distribution over all components.",
            (Query(buckets("pxserve_batch_rows"), "{{le}}"),),
            "heatmap",
        ),
        Panel(
            "Padding",
            "percentunit",
            "Network rows that ran for nobody, as a share of all that ran: fixed batches that are not full, "
            "free slots between busy ones.",
            (
                Query(
                    share(
                        rate("pxserve_padded_rows_total", "model, component"),
                        f"{rate('pxserve_padded_rows_total', 'model, component')} + "
                        f"{rate('pxserve_network_evaluations_total', 'model, component')}",
                    ),
                    "{{model}} {{component}}",
                ),
            ),
            most=1,
        ),
        Panel(
            "Seconds per network row",
            "s",
            "Step time over rows: what one evaluation costs. It falls while batches fill and is flat once "
            "the device is full: a larger --max-rows gains nothing then.",
            (
                Query(
                    share(
                        rate("pxserve_step_seconds_sum", "model, component"),
                        rate("pxserve_network_evaluations_total", "model, component"),
                    ),
                    "{{model}} {{component}}",
                ),
            ),
        ),
        Panel(
            "Network evaluations per second",
            "ops",
            "Rows that ran; what the device delivers.",
            (
                Query(
                    rate("pxserve_network_evaluations_total", "model, component"), "{{model}} {{component}}"
                ),
            ),
        ),
        Panel(
            "Capacity of a run",
            "none",
            "Rows that one run may hold (--max-rows, or what fits its buffers).",
            (
                Query(
                    f"max by (model, component) ({chosen('pxserve_rows_capacity')})",
                    "{{model}} {{component}}",
                ),
            ),
            "bargauge",
        ),
    ),
)

ROWS = Row(
    "Rows and work",
    (
        Panel(
            "Rows active and queued",
            "none",
            "At the limit (--queue-rows) requests are refused. Queued growing while active stays: full.",
            (
                Query(total("pxserve_rows_active", "instance", among=PROCESS), "active {{instance}}"),
                Query(total("pxserve_rows_queued", "instance", among=PROCESS), "queued {{instance}}"),
                Query(f"max({chosen('pxserve_queue_limit_rows', among=PROCESS)})", "limit"),
            ),
        ),
        Panel(
            "Backlog",
            "s",
            "Predicted device seconds of all admitted work; the figure to scale on.",
            (Query(chosen("pxserve_backlog_seconds", among=PROCESS), "{{instance}}"),),
            limits=(2, 30),
        ),
        Panel(
            "Calls in flight",
            "none",
            "By operation, whatever they wait for.",
            (Query(total("pxserve_requests_in_flight", "operation", among=PROCESS), "{{operation}}"),),
            stacked=True,
        ),
        Panel(
            "Wasted device seconds per second",
            "percentunit",
            "By cause. cancelled and late are callers' choices: shorter deadlines, fewer retries. failed: a "
            "network's faults, see the log.",
            (Query(rate("pxserve_wasted_device_seconds_total", "model, cause"), "{{model}} {{cause}}"),),
            stacked=True,
        ),
        Panel(
            "Device seconds per second by token",
            "percentunit",
            "Who uses the device; ended requests, so that long ones show when they end.",
            (Query(rate("pxserve_device_seconds_total", "token"), "token {{token}}"),),
            stacked=True,
        ),
        Panel(
            "Models",
            "none",
            "Versions by state; anything in failed needs a look at the log.",
            (Query(total("pxserve_models", "state", among=PROCESS), "{{state}}"),),
            "bargauge",
        ),
        Panel(
            "Load and warm-up",
            "s",
            "Of each loaded version, as last measured.",
            (
                Query(
                    f"max by (model, version) ({chosen('pxserve_load_seconds')})",
                    "load {{model}}/{{version}}",
                ),
                Query(
                    f"max by (model, version) ({chosen('pxserve_warmup_seconds')})",
                    "warm-up {{model}}/{{version}}",
                ),
            ),
            "bargauge",
        ),
        Panel(
            "Memory of models",
            "bytes",
            "Weights, and caches of keys and values.",
            (
                Query(
                    total("pxserve_model_memory_bytes", "model, version, kind"),
                    "{{model}}/{{version}} {{kind}}",
                ),
            ),
            "bargauge",
        ),
        Panel(
            "What runs",
            "none",
            "One bar per version: its runtime, device and the path of its kernels (triton on CUDA, "
            "reference on CPU). A model on the wrong device shows here.",
            (
                Query(
                    f"max by (model, version, runtime, device, dtype, kernels, determinism) "
                    f"({chosen('pxserve_model_info')})",
                    "{{model}}/{{version}} {{runtime}} {{device}} {{dtype}} {{kernels}}",
                ),
            ),
            "bargauge",
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="pxserve-engine",
    title="pxserve / engine",
    what="What the device does: runs, batches, padding, rows, waste, and what is loaded.",
    rows=(TICKS, BATCHES, ROWS),
    variables=(JOB, INSTANCE, MODELS),
)
