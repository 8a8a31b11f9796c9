"""The residual stream: what is added to it waits for the next norm, which adds and normalises in one pass."""

from __future__ import annotations

from dataclasses import dataclass, field

from export.graph.decoder import Linear, Norm
from export.graph.nodes import Writer


@dataclass
class Residual:
    """``x`` is what has been added up; ``waiting`` are terms (value, bias or none) that have not."""

    writer: Writer
    x: str
    waiting: list[tuple[str, str | None]] = field(default_factory=list)

    def add(self, name: str, linear: Linear, x: str) -> None:
        """Add linear(x) to the stream."""
        bias = None if linear.bias is None else self.writer.weight(f"{name}.bias", linear.bias)
        self.waiting.append((self.writer.product(name, linear, x), bias))

    def normed(self, name: str, norm: Norm) -> str:
        """norm(stream); afterwards nothing waits."""
        while len(self.waiting) > 1:
            self._settle(*self.waiting.pop())
        if not self.waiting:
            return self.writer.norm(name, norm, self.x)
        term, bias = self.waiting.pop()
        weights = self.writer.norm_weights(name, norm)
        inputs = [term, self.x, *weights, *([] if bias is None else [bias])]
        operator = "SkipSimplifiedLayerNormalization" if norm.bias is None else "SkipLayerNormalization"
        self.x = f"{name}.sum"
        return self.writer.contrib(operator, inputs, [f"{name}.out", "", "", self.x], epsilon=norm.epsilon)

    def _settle(self, term: str, bias: str | None) -> None:
        if bias is not None:
            term = self.writer.node("Add", [term, bias], f"{term}.biased")
        self.x = self.writer.node("Add", [self.x, term], f"{term}.added")
