"""A Markov chain as an autoregressive package: every conditional law in closed form."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from export.package.schema import (
    Autoregressive,
    Component,
    Condition,
    DataSpace,
    ModelSpec,
    Parity,
    TensorSpec,
)
from serving.families.autoregressive.family import AutoregressiveFamily
from serving.families.calibration import Calibration
from serving.families.drive import run_alone
from serving.families.request import Operation, Request
from serving.families.result import Result
from serving.families.rows import Tensors

Floats = NDArray[np.float64]
CPU = torch.device("cpu")

START = np.array([0.4, 0.3, 0.2, 0.1])
STEP = np.array(
    [[0.85, 0.10, 0.04, 0.01], [0.05, 0.80, 0.10, 0.05], [0.10, 0.10, 0.70, 0.10], [0.02, 0.03, 0.15, 0.80]]
)
SYMBOLS = 4

# Golden case: what is known of a row, and the exact posterior of its sixth symbol.
KNOWN = np.array([[0, 0, 1, 0, 0, 0, 3, 3]], np.int32)
OBSERVED = np.array([[True, True, True, False, False, False, True, True]])
LOG_EVIDENCE = -5.527928
LAST_GAP = np.array([0.009, 0.189, 0.133, 0.669])
LAST_GAP_LEFT_ONLY = np.array([0.130, 0.553, 0.195, 0.122])


@dataclass
class ChainNetwork:
    """``tokens`` [rows, length] -> ``logits``; counts its rows and runs."""

    length: int
    shifted: bool = True
    rows: int = 0
    runs: int = 0
    specs: dict[str, tuple[torch.dtype, tuple[int, ...]]] = field(init=False)

    def __post_init__(self) -> None:
        self.specs = {"tokens": (torch.int64, (self.length,))}

    def __call__(self, inputs: Tensors) -> Tensors:
        tokens = inputs["tokens"]
        self.rows += len(tokens)
        self.runs += 1
        if not self.shifted:
            begin = torch.full((len(tokens), 1), SYMBOLS)
            tokens = torch.cat([begin, tokens[:, :-1]], dim=1)
        return {"logits": laws()[tokens]}


def laws() -> torch.Tensor:
    """Log-probabilities after each symbol; the last line is the begin symbol's."""
    return torch.from_numpy(np.log(np.vstack([STEP, START]))).float()


def chain_spec(
    shape: tuple[int, ...] = (8,), kind: str = "tokens", axes: tuple[str, ...] = ("time",), **section: object
) -> ModelSpec:
    """A package around the chain; ``section`` overrides the autoregressive section."""
    variable = -1 in shape
    tokens = TensorSpec(name="tokens", dtype="int64", shape=("rows", "length"))
    logits = TensorSpec(name="logits", dtype="float32", shape=("rows", "length", SYMBOLS))
    label = Condition(name="label", kind="class", classes=SYMBOLS)
    values: dict[str, object] = {"vocabulary": SYMBOLS, "begin_symbol": SYMBOLS, **section}
    return ModelSpec(
        format_version=1,
        name="chain",
        family="autoregressive",
        description="Markov chain",
        license="Apache-2.0",
        data=DataSpace.model_validate(
            {
                "kind": kind,
                "axes": axes,
                "shape": shape,
                "dtype": "int32",
                "levels": SYMBOLS,
                "max_length": 40 if variable else 0,
            }
        ),
        conditions=(label,) if "begin_condition" in section else (),
        components={"scorer": Component(format="onnx", file="s.onnx", inputs=(tokens,), outputs=(logits,))},
        autoregressive=Autoregressive.model_validate(values),
        parity=Parity(max_abs_error=0.0, max_rel_error=0.0, inputs="none"),
        files={"s.onnx": "0" * 64},
    )


@dataclass
class Chain:
    """A family over the chain, and a way to ask it."""

    spec: ModelSpec = field(default_factory=chain_spec)
    calibration: Calibration | None = None
    capacity: int = 4096

    def __post_init__(self) -> None:
        self.family = AutoregressiveFamily(self.spec, self.calibration)
        shifted = self.family.alphabet.section.shifted_input
        self.network = ChainNetwork(self.family.alphabet.length, shifted)
        self.tables = self.family.tables({}, self.capacity, CPU)

    def ask(self, request: Request) -> Result:
        """The answer alone."""
        return run_alone(self.family.program(request), {"scorer": self.network}, self.tables)

    def statistics(self, request: Request) -> Result:
        """Raw anomaly statistics."""
        return run_alone(self.family.statistics(request), {"scorer": self.network}, self.tables)


def request(operation: Operation, method: str, rows: int, seed: int = 1, **fields: object) -> Request:
    """A request with the usual parts given."""
    parameters = fields.pop("parameters", {})
    return Request(operation, method, parameters, seed, rows=rows, **{"first_row": 0, **fields})  # type: ignore[arg-type]


def log_prob(row: NDArray[np.int32]) -> float:
    """log p of one row."""
    return float(np.log(START[row[0]]) + np.log(STEP[row[:-1], row[1:]]).sum())


def every_row(length: int) -> NDArray[np.int32]:
    """All rows of a length."""
    return np.array(list(itertools.product(range(SYMBOLS), repeat=length)), np.int32)


def posterior(known: NDArray[np.int32], observed: NDArray[np.bool_]) -> tuple[NDArray[np.int32], Floats]:
    """Every completion of one row, and log p(completed row) of each."""
    gaps = np.flatnonzero(~observed)
    fills = every_row(len(gaps)) if len(gaps) else np.zeros((1, 0), np.int32)
    rows = np.repeat(known[None], len(fills), axis=0)
    rows[:, gaps] = fills
    return rows, np.array([log_prob(row) for row in rows])
