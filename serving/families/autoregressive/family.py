"""Autoregressive models: what can be asked, and which program answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch

from export.package.schema import DataSpace, ModelSpec
from serving.errors import FailedPrecondition
from serving.families.autoregressive import (
    anomaly,
    costs,
    evidence,
    inpaint,
    likelihood,
    methods,
    sampling,
    transform,
)
from serving.families.autoregressive.order import Order
from serving.families.autoregressive.slotted import CachedTable, Decoder
from serving.families.autoregressive.stopping import Pieces
from serving.families.autoregressive.symbols import Alphabet
from serving.families.autoregressive.whole import WholeRowTable
from serving.families.calibration import Calibration
from serving.families.capability import Capability
from serving.families.request import Operation, Request
from serving.families.rows import Program, Table


class AutoregressiveFamily:
    """Tokens and pixels by the chain rule, p(x) = prod p(x_i | x_<i)."""

    name = "autoregressive"
    two_sided = anomaly.TWO_SIDED

    def __init__(self, spec: ModelSpec, calibration: Calibration | None = None) -> None:
        self.spec = spec
        self.calibration = calibration
        self.alphabet = Alphabet(spec)
        places = self.alphabet.section.order
        self.order = Order(places, spec.data.shape) if places is not None else None
        self._loop_rows: int | None = None  # rows of one loop, at most; changes no answer

    @property
    def latent(self) -> DataSpace | None:
        """One normal per symbol, shaped as the data; none where lengths vary."""
        data = self.spec.data
        if data.variable:
            return None
        return DataSpace(kind="vector", axes=data.axes, shape=data.shape, dtype="float32")

    def capabilities(self) -> tuple[Capability, ...]:
        """See ``methods``."""
        return methods.capabilities(self.alphabet)

    def program(self, request: Request) -> Program:
        """The program of a request; FailedPrecondition where it has no answer."""
        return self.order.program(request, self._program) if self.order else self._program(request)

    def _program(self, request: Request) -> Program:
        if request.operation is Operation.SAMPLE:
            return sampling.sample(self.alphabet, request, self._loop_rows)
        if request.operation is Operation.LIKELIHOOD:
            estimated = request.method == "smc"
            return (evidence.estimate if estimated else likelihood.exact)(self.alphabet, request)
        if request.operation is Operation.INPAINT:
            return self._inpaint(request)
        if request.operation is Operation.SCORE_ANOMALY:
            return anomaly.score(self.alphabet, request, self.calibration)
        return self._transform(request)

    def statistics(self, request: Request) -> Program:
        """For calibration: answers a ScoreAnomaly request with raw statistics as ``score``, no p-values."""

        def inner(request: Request) -> Program:
            return anomaly.statistics(self.alphabet, request)

        return self.order.program(request, inner) if self.order else inner(request)

    def network_rows(self, request: Request) -> dict[str, int]:
        """Network rows by component, an upper bound."""
        return costs.network_rows(self.alphabet, request)

    def depth(self, request: Request) -> int:
        """Network runs that must follow one another, at most."""
        return costs.depth(self.alphabet, request)

    def tables(
        self, components: Mapping[str, object], capacity: int, device: torch.device
    ) -> dict[str, Table]:
        """The decoding table: over the cache where the package has one, else over whole rows."""
        table: Table
        pieces = cast("Pieces | None", components.get("pieces"))
        if "decoder" in components:
            decoder = cast(Decoder, components["decoder"])
            running = device.type != "cpu" or bool(components.get("running"))
            table = CachedTable(self.alphabet, decoder, capacity, device, pieces, running=running)
        else:
            table = WholeRowTable(self.alphabet, capacity, device, self._length_axis(), pieces)
        self._loop_rows = table.capacity
        return {sampling.TABLE: table}

    def _inpaint(self, request: Request) -> Program:
        if request.method == "enumerate":
            return inpaint.by_enumeration(self.alphabet, request)
        how = inpaint.left_to_right if request.method == "left_to_right" else inpaint.by_particles
        return how(self.alphabet, request, self._loop_rows)

    def _transform(self, request: Request) -> Program:
        if self.alphabet.variable:
            raise FailedPrecondition(methods.UNSHAPED, reason="OPERATION_UNDEFINED")
        how = {
            Operation.ENCODE: transform.encode,
            Operation.DECODE: transform.decode,
            Operation.RECONSTRUCT: transform.reconstruct,
            Operation.INTERPOLATE: transform.interpolate,
        }[request.operation]
        return how(self.alphabet, request, self._loop_rows)

    def _length_axis(self) -> str | None:
        inputs = self.spec.components["scorer"].inputs
        axis = next(port.shape[1] for port in inputs if port.name == "tokens")
        return axis if isinstance(axis, str) else None
