"""Every metric that pxserve exports: names, labels, units; everything else refers to this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "summary"]
How = Literal["each", "many", "scraped"]

LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
STEP_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
RATIO = (0.1, 0.25, 0.5, 0.75, 0.9, 1.1, 1.25, 1.5, 2, 3, 5, 10, 20, 50)
PREDICTED_S = 0.02  # the least prediction that is compared with what came: shorter ones are about one tick


@dataclass(frozen=True)
class Metric:
    """One metric; units are in the name, label values are bounded.

    ``how`` values come: by calls for each, by calls for many at once (histograms, without exemplars), or
    read from the operating system when scraped.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    how: How = "each"


def _engine(name: str, help_text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Metric:
    return Metric(name, "histogram", help_text, labels, buckets, "many")


# -- requests, as the gRPC front end sees them -----------------------------------------------------------

REQUEST_SECONDS = Metric(
    "pxserve_request_seconds",
    "histogram",
    "From the first byte of a call to its status",
    ("model", "operation", "code"),
    LATENCY_S,
)
PHASE_SECONDS = Metric(
    "pxserve_request_phase_seconds",
    "summary",
    "Parts of answered requests, which add up to their latency: "
    "prepare (parse, resolve, admit), queue, run, reply (convert, and for streams send)",
    ("model", "phase"),
)
FIRST_EVENT_SECONDS = Metric(
    "pxserve_first_event_seconds",
    "histogram",
    "From the first byte of a stream's call to its first preview, token, row or running estimate",
    ("model", "kind"),
    LATENCY_S,
)
REQUESTS_IN_FLIGHT = Metric(
    "pxserve_requests_in_flight", "gauge", "Calls without a status yet", ("operation",)
)
REJECTIONS_TOTAL = Metric(
    "pxserve_rejections_total",
    "counter",
    "Calls without an answer, by ErrorInfo reason; the model is empty where the call named none that answers",
    ("model", "reason"),
)
ROWS_TOTAL = Metric(
    "pxserve_rows_total", "counter", "Answered rows: of sample and inpaint, samples", ("model", "operation")
)
EVENT_LOOP_LAG_SECONDS = Metric(
    "pxserve_event_loop_lag_seconds",
    "histogram",
    "How late the gRPC event loop woke from a sleep: its wait for a core or for another call's conversion",
    (),
    STEP_S,
)

# -- requests, as the engine sees them -------------------------------------------------------------------

QUEUE_SECONDS = _engine(
    "pxserve_queue_seconds",
    "From admission to the first network run, or to the end of a request that never ran",
    ("model",),
    LATENCY_S,
)
PREDICTION_RATIO = _engine(
    "pxserve_latency_prediction_ratio",
    "Latency from admission on, over what admission predicted; of answered requests, predicted to take 20 ms "
    "or longer",
    ("model",),
    RATIO,
)
DEVICE_SECONDS_TOTAL = Metric(
    "pxserve_device_seconds_total",
    "counter",
    "Device seconds of ended requests, by model and name of the caller's token (empty without tokens)",
    ("model", "token"),
)
WASTED_DEVICE_SECONDS_TOTAL = Metric(
    "pxserve_wasted_device_seconds_total",
    "counter",
    "Device seconds of requests that got no answer, by cause: cancelled, late, failed, shutdown",
    ("model", "cause"),
)

# -- the engine's ticks ----------------------------------------------------------------------------------

STEP_SECONDS = _engine(
    "pxserve_step_seconds",
    "One network run and the advance of its rows; phase prefill reads prompts, step is everything else",
    ("model", "component", "phase"),
    STEP_S,
)
STEP_INTERVAL_SECONDS = _engine(
    "pxserve_step_interval_seconds",
    "Between two steps of the same row: the step, and the turns of other rows and models before it",
    ("model",),
    STEP_S,
)
INTER_TOKEN_SECONDS = _engine(
    "pxserve_inter_token_seconds",
    "Between two tokens of the same row of an autoregressive model",
    ("model",),
    STEP_S,
)
BATCH_ROWS = _engine("pxserve_batch_rows", "Network rows that shared a run", ("model", "component"), ROWS)
PADDED_ROWS_TOTAL = Metric(
    "pxserve_padded_rows_total",
    "counter",
    "Network rows that ran for nobody: padding to a fixed batch, free slots between busy ones",
    ("model", "component"),
)
NETWORK_EVALUATIONS_TOTAL = Metric(
    "pxserve_network_evaluations_total", "counter", "Network rows that ran", ("model", "component")
)
STEPS_TOTAL = Metric(
    "pxserve_steps_total", "counter", "Steps of rows of iterative models, tokens left out", ("model",)
)
TOKENS_TOTAL = Metric(
    "pxserve_tokens_total",
    "counter",
    "Tokens of autoregressive models: generated (particles count), and prompt of answered requests",
    ("model", "kind"),
)
ROWS_ACTIVE = Metric("pxserve_rows_active", "gauge", "Rows of requests that have begun to run")
ROWS_QUEUED = Metric("pxserve_rows_queued", "gauge", "Rows of requests that wait for their first run")
QUEUE_LIMIT_ROWS = Metric(
    "pxserve_queue_limit_rows", "gauge", "Rows, active and queued, beyond which requests are refused"
)
ROWS_CAPACITY = Metric(
    "pxserve_rows_capacity", "gauge", "Network rows that one run may hold", ("model", "component")
)
BACKLOG_SECONDS = Metric("pxserve_backlog_seconds", "gauge", "Predicted device seconds of all remaining work")

# -- models and the process ------------------------------------------------------------------------------

MODELS_READY = Metric("pxserve_models_ready", "gauge", "Versions that answer")
MODELS = Metric("pxserve_models", "gauge", "Versions of models by state", ("state",))
MODEL_INFO = Metric(
    "pxserve_model_info",
    "gauge",
    "1 for each version that answers; kernels says which path advances its rows: triton or reference",
    ("model", "version", "family", "runtime", "device", "dtype", "kernels", "determinism"),
)
LOAD_SECONDS = Metric(
    "pxserve_load_seconds", "gauge", "Reading and opening of a version", ("model", "version")
)
WARMUP_SECONDS = Metric(
    "pxserve_warmup_seconds", "gauge", "Testing and measuring of a version", ("model", "version")
)
MODEL_MEMORY_BYTES = Metric(
    "pxserve_model_memory_bytes",
    "gauge",
    "Memory of a version, by kind: weights (its files), cache (keys and values of its rows)",
    ("model", "version", "kind"),
)
READY = Metric("pxserve_ready", "gauge", "1 while this process accepts work, as its health says")
ENGINE_ALIVE = Metric("pxserve_engine_alive", "gauge", "1 while the engine ticks and its device answers")
CPU_WAIT_SECONDS_TOTAL = Metric(
    "pxserve_cpu_wait_seconds_total",
    "counter",
    "Time that threads were ready to run and got no core, summed over the threads of a process: server, or "
    "engine where it is one of its own",
    ("process",),
    how="scraped",
)
CPU_CORES = Metric(
    "pxserve_cpu_cores",
    "gauge",
    "Cores that this process may use: its affinity, within its container's quota",
)
BUILD_INFO = Metric(
    "pxserve_build_info", "gauge", "1; the labels say what runs", ("version", "device", "engine", "python")
)

# The reasons of docs/errors.md: counters of refusals begin at zero for each of them.
REASONS = (
    "INVALID_ARGUMENT",
    "MEMORY",
    "MODEL_NOT_FOUND",
    "SERVICE_NOT_FOUND",
    "OPERATION_UNDEFINED",
    "NOT_READY",
    "NOT_CALIBRATED",
    "REPOSITORY_MODE",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "QUOTA",
    "TOO_MANY_CALLS",
    "QUEUE_FULL",
    "DEADLINE_INFEASIBLE",
    "DEADLINE_MISSED",
    "DRAINING",
    "UNLOADING",
    "DEVICE_LOST",
    "ADMIN_ELSEWHERE",
    "CANCELLED",
    "INTERNAL",
)

TABLE: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
