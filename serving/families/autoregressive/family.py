"""Autoregressive models: what can be asked, and which program answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch

from export.package.schema import ModelSpec
from serving.families.autoregressive import likelihood, methods, sampling
from serving.families.autoregressive.slotted import CachedTable, Decoder
from serving.families.autoregressive.symbols import Alphabet
from serving.families.autoregressive.whole import WholeRowTable
from serving.families.calibration import Calibration
from serving.families.capability import Capability
from serving.families.request import Operation, Request
from serving.families.rows import Program, Table


class AutoregressiveFamily:
    """Tokens and pixels by the chain rule, p(x) = prod p(x_i | x_<i)."""

    name = "autoregressive"

    def __init__(self, spec: ModelSpec, calibration: Calibration | None = None) -> None:
        self.spec = spec
        self.calibration = calibration
        self.alphabet = Alphabet(spec)

    def capabilities(self) -> tuple[Capability, ...]:
        """See ``methods``."""
        return methods.capabilities(self.alphabet)

    def program(self, request: Request) -> Program:
        """The program of a request."""
        if request.operation is Operation.SAMPLE:
            return sampling.sample(self.alphabet, request)
        return likelihood.exact(self.alphabet, request)

    def network_rows(self, request: Request) -> dict[str, int]:
        """Network rows by component, an upper bound."""
        if request.operation is Operation.SAMPLE:
            steps = sampling.continuation(self.alphabet, request).steps
            return {"decoder" if self.alphabet.cached else "scorer": int(steps.sum())}
        return {"scorer": request.rows}

    def tables(
        self, components: Mapping[str, object], capacity: int, device: torch.device
    ) -> dict[str, Table]:
        """The decoding table: over the cache where the package has one, else over whole rows."""
        if "decoder" in components:
            decoder = cast(Decoder, components["decoder"])
            return {sampling.TABLE: CachedTable(self.alphabet, decoder, capacity, device)}
        return {sampling.TABLE: WholeRowTable(self.alphabet, capacity, device, self._length_axis())}

    def _length_axis(self) -> str | None:
        shape = self.spec.components["scorer"].inputs[0].shape
        return shape[1] if isinstance(shape[1], str) else None
