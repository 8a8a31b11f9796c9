"""The table that ``pxserve-export tune`` prints: speed and error of every candidate, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from export.tune.candidate import NOW, Row
from export.tune.forms import REFUSED


def table(rows: Sequence[Row], counts: Sequence[int]) -> str:
    """One line per candidate; ratios above 1 are faster than what is served now."""
    head = ["candidate", *(f"{count} row{'s' if count > 1 else ''}" for count in counts),
            "largest error", "nats/symbol", "same bits in any batch", "MB"]  # fmt: skip
    lines = [head, *(_line(row, counts) for row in rows if not row.absent)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([line.rstrip() for line in shown] + list(_absent(rows))) + "\n"


def _line(row: Row, counts: Sequence[int]) -> list[str]:
    speeds = [f"{row.speed[count]:.2f}x" for count in counts]
    size = f"{row.size_bytes / 1e6:.1f}"
    if row.name == NOW:
        return [row.name, *speeds, "0", "0" if _nats([row]) else "-", "-", size]
    parities = list(row.parity.values())
    nats = [p.log_prob_error for p in parities if p.log_prob_error is not None]
    same = "yes" if all(p.batch_invariant for p in parities) else "no"
    error = f"{max(p.max_rel_error for p in parities):.2g}"
    return [row.name, *speeds, error, f"{max(nats):.2g}" if nats else "-", same, size]


def _nats(rows: Sequence[Row]) -> bool:
    return any("logits" in {t.name for t in f.component.outputs} for row in rows for f in row.forms.values())


def _absent(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row.absent:
            yield f"{row.name}: does not apply: {row.absent}"
    for name, reason in REFUSED.items():
        yield f"{name}: refused: {reason}"
