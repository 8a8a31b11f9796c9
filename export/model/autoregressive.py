"""A model that predicts one symbol after another: tokens, or the pixels of an image."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from export.adapt.steps import (
    Cast,
    LogProbability,
    OneHot,
    Reorder,
    Reshape,
    Scale,
    Step,
    Transpose,
    WithZero,
)
from export.adapt.wiring import Size, Wire
from export.graph.cached_decoder import Decoder
from export.model.base import Model, Part, wired
from export.model.network import AnyNetwork, bound
from export.model.record import specification
from export.model.spaces import Image, Tokens

Order = Literal["raster", "interleaved", "columns"] | tuple[int, ...]


@specification
class BeginSymbol:
    """The id that stands before the first symbol; the network reads it and the symbols but the last one."""

    symbol: int
    kind: Literal["symbol"] = field(default="symbol", kw_only=True)


@specification
class BeginCondition:
    """The same, chosen by a class condition: class v is the id ``offset`` + v."""

    condition: str
    offset: int
    kind: Literal["condition"] = field(default="condition", kw_only=True)


Begin = Annotated[BeginSymbol | BeginCondition, Field(discriminator="kind")] | Literal["none"]


@specification
class Autoregressive(Model):
    """``network``: symbols, conditions -> logits of every symbol given the ones before it.

    ``vocabulary``: how many symbols may come out. ``order``: in which the symbols of a row are met:
    ``raster`` (as the data lie: channel by channel, row by row), ``columns``, ``interleaved`` (row by row,
    all channels of a pixel together), or the places of the data, flattened, one after another.
    ``begin``: ``none`` where the network reads the symbols themselves and its output i sees only those before
    i (masked convolutions, MADE); else what it reads first, so that its output i predicts symbol i.
    ``holds``: how it holds a row: ``sequence`` [rows, length] in the order of ``order``, ``vector``
    [rows, length] and ``image`` [rows, C, H, W], as the data lie.
    ``reads``: ``ids`` (int64), ``one_hot`` (float32, the axis of symbols where ``symbols`` says), ``levels``
    (float32 in model coordinates, so ``data_range`` must be given).
    ``gives``: ``logits`` (or log-probabilities), ``probabilities``, or ``log_odds`` of symbol 1 of two.
    ``symbols``: where the axis of symbols lies in what it gives: ``last`` [rows, ..., vocabulary], ``first``
    [rows, vocabulary, ...], ``per_channel`` [rows, C * vocabulary, H, W].
    ``any_length``: it takes shorter rows too. ``end_symbol``: ends rows of variable length.
    ``cached``: the same network described for a decoder with a key/value cache (export.graph.cached_decoder).
    """

    network: AnyNetwork
    order: Order
    vocabulary: Annotated[int, Field(ge=2)]
    begin: Begin = field(kw_only=True)
    holds: Literal["sequence", "vector", "image"] = field(default="sequence", kw_only=True)
    reads: Literal["ids", "one_hot", "levels"] = field(default="ids", kw_only=True)
    gives: Literal["logits", "probabilities", "log_odds"] = field(default="logits", kw_only=True)
    symbols: Literal["last", "first", "per_channel"] = field(default="last", kw_only=True)
    any_length: bool = field(default=False, kw_only=True)
    end_symbol: int | None = field(default=None, kw_only=True)
    cached: Decoder | None = field(default=None, kw_only=True)
    data: Annotated[Image | Tokens, Field(discriminator="kind")] = field(kw_only=True)

    family = "autoregressive"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> list[str]:
        image, masked, sequence = isinstance(self.data, Image), self.begin == "none", self.holds == "sequence"
        size, levels = self.vocabulary, self.data.levels
        scaled = getattr(self.data, "scaled", False)
        named = self.order in ("interleaved", "columns")
        rules = (
            (
                levels < 2 or levels > size,
                f"vocabulary: {size} symbols are not the {levels} levels of the data",
            ),
            (self.holds == "image" and not image, "holds='image' needs data=Image(...)"),
            (named and not image, f"order {self.order!r} needs data=Image(...)"),
            (self.places is None, "order: name every place of a row once"),
            (not masked and not sequence, "holds: a network that reads a begin symbol holds a sequence"),
            (self.reads == "levels" and not masked, "reads: levels go with begin='none'"),
            (
                self.reads == "levels" and not scaled,
                "reads: levels need data_range (of the pixels, as it sees them)",
            ),
            (self.gives == "log_odds" and size != 2, "gives: log_odds are those of symbol 1 of two"),
            (
                self.symbols == "per_channel" and self.holds != "image",
                "symbols='per_channel' needs holds='image'",
            ),
            (
                self.any_length and (masked or not sequence),
                "any_length needs a begin symbol and holds='sequence'",
            ),
            (
                self.end_symbol is not None and -1 not in self.data.shape,
                "end_symbol needs Tokens(variable=True)",
            ),
        )
        return [problem for broken, problem in rules if broken]

    @property
    def reads_levels(self) -> bool:
        """Symbols are ids; ranges are asked for where they matter."""
        return False

    @property
    def length(self) -> int:
        """Symbols of a row, at most."""
        return int(np.prod(self.data.shape)) if isinstance(self.data, Image) else self.data.length

    @property
    def places(self) -> tuple[int, ...] | None:
        """Place in the flattened data of each symbol in order; None where ``order`` is no such thing."""
        places = np.arange(self.length)
        if isinstance(self.order, tuple):
            named = sorted(self.order) == places.tolist()
            return self.order if named else None
        if isinstance(self.data, Image) and self.order != "raster":
            axes = (1, 2, 0) if self.order == "interleaved" else (0, 2, 1)
            places = places.reshape(self.data.shape).transpose(axes).reshape(-1)
        return tuple(places.tolist())

    @property
    def reordered(self) -> bool:
        """Whether the order is another than that of the data."""
        return self.places != tuple(range(self.length))

    def data_section(self) -> dict[str, Any]:
        """``data`` of ``model.yaml``: levels as they are."""
        return self.data.section() | {"transform": {"kind": "identity"}}

    def section(self) -> dict[str, Any]:
        """See ``export.package.sections.Autoregressive``."""
        found: dict[str, Any] = {"vocabulary": self.vocabulary, "shifted_input": self.begin != "none"}
        if isinstance(self.begin, BeginSymbol):
            found["begin_symbol"] = self.begin.symbol
        if isinstance(self.begin, BeginCondition):
            found |= {"begin_condition": self.begin.condition, "begin_offset": self.begin.offset}
        if self.end_symbol is not None:
            found["end_symbol"] = self.end_symbol
        if isinstance(self.data, Tokens):
            found["tokenizer"] = self.data.tokenizer
        if self.reordered:
            found["order"] = list(self.places or ())
        return found | self._cache()

    def _cache(self) -> dict[str, Any]:
        if self.cached is None:
            return {}
        shape = {
            "layers": len(self.cached.blocks),
            "kv_heads": self.cached.kv_heads,
            "head_dim": self.cached.head_dim,
            "max_length": self.cached.max_length,
        }
        return {"cache": shape}

    def parts(self) -> dict[str, Part]:
        """The scorer."""
        network = bound(self.network)
        size: Size = "length" if self.any_length else self.length
        begin = self.begin.condition if isinstance(self.begin, BeginCondition) else None
        given = [wire for wire in self.condition_inputs() if wire.name != begin]
        tokens = Wire("tokens", "int64", (size,), (*self._to_places(), *self._read()))
        logits = Wire("logits", "float32", (size, self.vocabulary), (*self._given(), *self._to_order()))
        return {"scorer": Part(network, wired(network, (tokens, *given), (logits,)), looped=True)}

    def _to_places(self) -> tuple[Step, ...]:
        """From the order of the chain to the places of the data, where the network holds those."""
        if self.holds == "sequence" or not self.reordered:
            return ()
        return (Reorder(tuple(np.argsort(self.places or ()).tolist())),)

    def _to_order(self) -> tuple[Step, ...]:
        return (Reorder(self.places or ()),) if self.holds != "sequence" and self.reordered else ()

    def _read(self) -> tuple[Step, ...]:
        shaped = (Reshape(tuple(self.data.shape)),) if self.holds == "image" else ()
        if self.reads == "one_hot":
            begin = self.begin.symbol if isinstance(self.begin, BeginSymbol) else 0
            return (*shaped, OneHot(max(self.vocabulary, begin + 1), self.symbols == "first"))
        return (*shaped, *self._levels()) if self.reads == "levels" else shaped

    def _levels(self) -> tuple[Step, ...]:
        transform = self.data.section()["transform"]
        axes = 4 if self.holds == "image" else 2
        scale, shift = tuple(transform["scale"]), tuple(transform["shift"])
        return Cast("float32"), Scale(scale, shift, axes=axes)

    def _given(self) -> tuple[Step, ...]:
        """From what the network gives to logits [rows, length, vocabulary]."""
        if self.gives == "log_odds":
            return Reshape((-1,)), WithZero()
        law = (LogProbability(),) if self.gives == "probabilities" else ()
        size = self.vocabulary
        if self.symbols == "last":
            return (*law, Reshape((-1, size))) if self.holds == "image" else law
        if self.symbols == "first":
            return *law, Reshape((size, -1)), Transpose((0, 2, 1))
        channels = self.data.shape[0]
        return *law, Reshape((channels, size, -1)), Transpose((0, 1, 3, 2)), Reshape((-1, size))
