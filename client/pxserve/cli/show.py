"""Results as tables for people, and as JSON for programs."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pxserve.errors import PxserveError
from pxserve.models import Capability, Check, Model, Provenance, SelfTest
from pxserve.results import Anomalies, Completions, Latents, Likelihoods, Reconstructions, Samples


def as_json(value: Any) -> Any:
    """Plain lists, dicts and scalars; what JSON has no number for is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        return as_json(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def error_json(error: PxserveError) -> dict[str, Any]:
    """What the server said when it said no."""
    names = ("reason", "message", "field_violations", "retry_after_s", "metadata", "request_id")
    fields = {name: as_json(getattr(error, name)) for name in names}
    return {"error": {"code": error.code.name, **fields}}


def console() -> Console:
    """Standard output; wide enough for tables where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)


def _print_table(out: Console, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Texts from the server are no markup."""
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row))
    out.print(table)


def models(out: Console, found: Sequence[Model]) -> None:
    """One line per version."""
    headings = ("model", "version", "state", "family", "data", "operations")
    _print_table(out, headings, (_line(model) for model in found))


def line(out: Console, found: Model) -> None:
    """A model's state after a command."""
    out.print(
        ": ".join(
            part for part in (f"{found.name} {found.version}", found.state, found.state_message) if part
        )
    )


def _line(found: Model) -> tuple[str, ...]:
    operations = ", ".join(c.operation for c in found.capabilities if c.supported)
    version = f"{found.version} *" if found.is_default_version else str(found.version)
    state = f"{found.state}: {found.state_message}" if found.state_message else found.state
    return found.name, version, state, found.family, _space(found), operations


def _space(found: Model) -> str:
    if found.data is None:
        return ""
    shape = "×".join("…" if length < 0 else str(length) for length in found.data.shape)
    levels = f", {found.data.levels} levels" if found.data.levels else ""
    return f"{found.data.kind} {shape} {found.data.dtype}{levels}"


def model(out: Console, found: Model) -> None:
    """What can be asked of a model; defaults are marked by a star."""
    models(out, [found])
    if found.description:
        out.print(found.description)
    for condition in found.conditions:
        size = f"{condition.classes} classes" if condition.classes else str(list(condition.shape))
        out.print(f"condition {condition.name}: {condition.kind}, {size}; absent: {condition.when_absent}")
    headings = ("operation", "method", "kind", "s/row", "parameters")
    _print_table(out, headings, (row for c in found.capabilities for row in _methods(c)))


def _methods(capability: Capability) -> Iterator[tuple[str, ...]]:
    if not capability.supported:
        yield capability.operation, "-", "", "", capability.reason
    for method in capability.methods:
        name = f"{method.name} *" if method.is_default else method.name
        parameters = ", ".join(f"{p.name}={p.default_value or '…'}" for p in method.parameters)
        yield capability.operation, name, method.kind, f"{method.row_seconds:.3g}", parameters


def answer(out: Console, result: Any) -> None:
    """A table of numbers per row where there are any, texts, and where it came from."""
    columns = _columns(result)
    if _headline(result):
        out.print(_headline(result))
    if columns:
        numbered = enumerate(zip(*columns.values(), strict=True))
        rows = ((str(row), *(f"{value:.6g}" for value in values)) for row, values in numbered)
        _print_table(out, ("row", *columns), rows)
    for text in getattr(result, "text", ()):
        out.print(text, soft_wrap=True)
    source(out, result.provenance)


def _columns(result: Any) -> dict[str, Any]:
    """Numbers per row under their headings."""
    match result:
        case Likelihoods():
            named = {
                "log_prob (nats)": result.log_prob,
                "bits/dim": result.bits_per_dim,
                "standard error": result.standard_error,
                "effective sample size": result.effective_sample_size,
                "solver error": result.solver_error,
                **{f"{name} (nats)": nats for name, nats in result.terms.items()},
            }
        case Anomalies():
            named = {"score": result.score, "p-value": result.p_value}
        case Reconstructions():
            named = {"rms error": result.error}
        case Latents():
            named = {"rms round trip": result.round_trip_error}
        case Samples():
            named = {"log_prob (nats)": result.log_prob}
        case Completions():
            named = {
                "effective sample size": result.effective_sample_size,
                "log evidence (nats)": result.log_evidence,
            }
        case _:
            named = {}
    return {heading: values for heading, values in named.items() if values is not None and len(values)}


def _headline(result: Any) -> str:
    match result:
        case Likelihoods():
            what = f"kind: {result.kind} · target: {result.target} · base measure: {result.base_measure}"
            return f"{what} · dequantization: {result.dequantization}"
        case Anomalies():
            return f"score: {result.method} · calibration: {result.calibration_size} rows"
        case Samples() if result.path:
            return f"path: {result.path}"
        case Samples() | Completions():
            return f"kind: {result.kind}"
        case _:
            return ""


def source(out: Console, provenance: Provenance) -> None:
    """Where the answer came from, in one line."""
    facts = [
        f"{provenance.model} {provenance.version}",
        provenance.method,
        f"seed {provenance.seed}",
        f"{provenance.network_evaluations} network evaluations",
        f"{1000 * provenance.device_seconds:.1f} ms on {provenance.device}" if provenance.device else "",
        provenance.runtime,
        f"request {provenance.request_id}" if provenance.request_id else "",
    ]
    out.print(" · ".join(fact for fact in facts if fact), style="dim", soft_wrap=True)


def checks(out: Console, found: SelfTest) -> None:
    """One line per check."""
    headings = ("check", "verdict", "p-value", "statistic", "if it fails", "detail")
    _print_table(out, headings, (_outcome(check) for check in found.checks))


def _outcome(check: Check) -> tuple[str, ...]:
    p_value = "" if check.p_value is None else f"{check.p_value:.3g}"
    blame = "the server is wrong" if check.holds_for_any_weights else "the model is imperfect"
    return check.name, check.verdict, p_value, f"{check.statistic:.4g}", blame, check.detail
