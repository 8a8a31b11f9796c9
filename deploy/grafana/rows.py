"""Rows of diffusion models and of token models: steps and tokens, their pace and what they cost."""

from __future__ import annotations

from deploy.grafana.model import Dashboard, Panel, Query, Row
from deploy.grafana.promql import INSTANCE, JOB, MODELS, chosen, quantile, rate, share

QUANTILES = (0.5, 0.9, 0.99)


PREFILL, GENERATED = 'phase="prefill"', 'kind="generated"'
DIFFUSION_MODELS = f"""max by (model) ({chosen("pxserve_model_info", 'family="diffusion"')})"""


def of_diffusion(expr: str) -> str:
    """Only models of that family, which most metrics do not tell."""
    return f"({expr}) * on (model) group_left () {DIFFUSION_MODELS}"


DIFFUSION = Row(
    "Diffusion, score and flow models",
    (
        Panel(
            "Steps per second",
            "ops",
            "Rows times steps: the throughput of the denoising loop.",
            (Query(rate("pxserve_steps_total", "model"), "{{model}}"),),
        ),
        Panel(
            "Time between steps of a row",
            "s",
            "p50, p90, p99. Times the number of steps, it is a request's run time.",
            tuple(
                Query(quantile(q, "pxserve_step_interval_seconds", "model"), f"{{{{model}}}} p{q * 100:g}")
                for q in QUANTILES
            ),
        ),
        Panel(
            "Rows answered per second",
            "ops",
            "By operation; of sample and inpaint, samples.",
            (Query(of_diffusion(rate("pxserve_rows_total", "model, operation")), "{{model}} {{operation}}"),),
        ),
        Panel(
            "Network evaluations per answered row",
            "none",
            "Steps, times two with guidance, times particles; a rise means that callers ask for more.",
            (
                Query(
                    of_diffusion(
                        share(
                            rate("pxserve_network_evaluations_total", "model"),
                            rate("pxserve_rows_total", "model"),
                        )
                    ),
                    "{{model}}",
                ),
            ),
        ),
        Panel(
            "Device seconds per answered row",
            "s",
            "What one answer costs.",
            (
                Query(
                    of_diffusion(
                        share(rate("pxserve_step_seconds_sum", "model"), rate("pxserve_rows_total", "model"))
                    ),
                    "{{model}}",
                ),
            ),
        ),
        Panel(
            "Time to the first preview",
            "s",
            "p50 and p99 of streams that show previews.",
            tuple(
                Query(
                    quantile(q, "pxserve_first_event_seconds", "model", 'kind="preview"'),
                    f"{{{{model}}}} p{q * 100:g}",
                )
                for q in (0.5, 0.99)
            ),
        ),
    ),
)

TOKENS = Row(
    "Token models",
    (
        Panel(
            "Tokens per second",
            "ops",
            "Generated (particles count), and prompts of answered requests.",
            (Query(rate("pxserve_tokens_total", "model, kind"), "{{model}} {{kind}}"),),
        ),
        Panel(
            "Time between tokens of a row",
            "s",
            "p50, p90, p99: what a reader of the stream feels. Far above the step time: prefill runs or "
            "other models take turns.",
            tuple(
                Query(quantile(q, "pxserve_inter_token_seconds", "model"), f"{{{{model}}}} p{q * 100:g}")
                for q in QUANTILES
            ),
        ),
        Panel(
            "Time to the first token",
            "s",
            "p50 and p99 of streams: queue, then the prompt's prefill.",
            tuple(
                Query(
                    quantile(q, "pxserve_first_event_seconds", "model", 'kind="token"'),
                    f"{{{{model}}}} p{q * 100:g}",
                )
                for q in (0.5, 0.99)
            ),
        ),
        Panel(
            "Prefill, of the device time",
            "percentunit",
            "Share of a model's runs that read prompts. High: prompts are long; decoding rows wait for them.",
            (
                Query(
                    share(
                        rate("pxserve_step_seconds_sum", "model", PREFILL),
                        rate("pxserve_step_seconds_sum", "model"),
                    ),
                    "{{model}}",
                ),
            ),
            most=1,
        ),
        Panel(
            "One prefill run",
            "s",
            "p50 and p99 of a chunk of a prompt: how long decoding rows wait for it.",
            tuple(
                Query(quantile(q, "pxserve_step_seconds", "model", PREFILL), f"{{{{model}}}} p{q * 100:g}")
                for q in (0.5, 0.99)
            ),
        ),
        Panel(
            "Device seconds per generated token",
            "s",
            "Falls while batches fill.",
            (
                Query(
                    share(
                        rate("pxserve_step_seconds_sum", "model"),
                        rate("pxserve_tokens_total", "model", GENERATED),
                    ),
                    "{{model}}",
                ),
            ),
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="pxserve-rows",
    title="pxserve / diffusion and token rows",
    what="Pace and cost of iterative rows: steps of diffusion models, tokens of autoregressive ones.",
    rows=(DIFFUSION, TOKENS),
    variables=(JOB, INSTANCE, MODELS),
)
