"""Results as JSON and as a Markdown page."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from tests.benchmarks.gpu.comparisons import KernelResult
from tests.benchmarks.gpu.loops import LoopResult
from tests.benchmarks.gpu.timing import Ceilings

_PACKAGES = ("torch", "triton", "numpy", "diffusers", "transformers")


def machine(device: torch.device) -> dict[str, str]:
    """Device, driver and versions."""
    found = {"device": platform.processor() or platform.machine(), "python": platform.python_version()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["device"] = f"{properties.name}, {properties.multi_processor_count} SMs"
        found["memory"] = f"{properties.total_memory / 2**30:.0f} GiB"
        found["cuda"] = str(torch.version.cuda)
        found["driver"] = _driver()
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _driver() -> str:
    path = Path("/proc/driver/nvidia/version")
    return path.read_text().splitlines()[0].split("  ")[1].strip() if path.exists() else "unknown"


@dataclass
class Report:
    """Everything measured in one run."""

    machine: dict[str, str]
    dry_run: bool
    ceilings: Ceilings | None = None
    kernels: list[KernelResult] = field(default_factory=list)
    loops: list[LoopResult] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write ``benchmarks-gpu.json`` and ``benchmarks-gpu.md``."""
        folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps(asdict(self), indent=1)
        (folder / "benchmarks-gpu.json").write_text(content + "\n", encoding="utf-8")
        (folder / "benchmarks-gpu.md").write_text(self.markdown(), encoding="utf-8")

    def markdown(self) -> str:
        """The page."""
        lines = ["# Kernels and loops on a GPU", ""]
        if self.dry_run:
            lines += ["A dry run on a CPU: it shows that everything runs. **Nothing here was measured.**", ""]
        lines += [f"- {name}: {value}" for name, value in self.machine.items()]
        if self.ceilings is not None:
            copied, product = self.ceilings.copy_bytes_per_s / 1e12, self.ceilings.matmul_per_s / 1e12
            lines.append(
                f"- ceilings: copy {copied:.2f} TB/s (read and write), bfloat16 product {product:.0f} TFLOP/s"
            )
        lines += ["", *self._kernel_table(), "", *self._loop_table(), ""]
        lines += [f"- not run: {name}" for name in self.skipped]
        return "\n".join(lines).rstrip() + "\n"

    def _kernel_table(self) -> list[str]:
        head = [
            "kernel",
            "ours us",
            "eager us",
            "compiled us",
            "copy us",
            "floor us",
            "of copy",
            "target",
            "note",
        ]
        rows = [
            [
                r.name, f"{r.ours_us:.1f}", f"{r.eager_us:.1f}",
                "" if r.compiled_us is None else f"{r.compiled_us:.1f}",
                f"{r.copy_us:.1f}", f"{r.floor_us:.1f}", f"{100 * r.of_copy:.0f} %", r.target, r.note,
            ]
            for r in self.kernels
        ]  # fmt: skip
        return _table(head, rows)

    def _loop_table(self) -> list[str]:
        slow = {
            (r.model, r.rows): r.rate for r in reversed(self.loops) if r.way.startswith("eager") and r.rate
        }
        head = ["model", "rows", "way", "rate", "over eager", "difference", "note"]
        rows = []
        for r in self.loops:
            base = slow.get((r.model, r.rows))
            over = f"{r.rate / base:.2f}" if base else ""
            difference = "" if r.difference is None else f"{r.difference:.1e}"
            rows.append([r.model, str(r.rows), r.way, f"{r.rate:.1f} {r.unit}", over, difference, r.note])
        return _table(head, rows)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
