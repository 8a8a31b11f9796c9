"""Another order than that of the data: every answer is that of the chain, put back where the data lie."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from export.package.components import check_components
from export.package.errors import PackageError
from export.package.schema import Autoregressive
from serving.families.autoregressive.order import Order
from serving.families.calibration import Calibration
from serving.families.capability import Method
from serving.families.request import Operation, Request
from serving.families.rows import Loop
from tests.analytic.ar.chains import Chain, chain_spec
from tests.analytic.ar.chains import request as ask_for
from tests.serving.families.autoregressive.test_autoregressive_family import CASES, asked

PLACES = (3, 1, 4, 0, 5, 2, 7, 6)
ORDER = Order(PLACES, (8,))
TURNED = ("data", "latents", "observed", "end", "log_prob_map", "score_map", "mean", "variance", "entropy")


def chain(**section: Any) -> Chain:
    values = np.linspace(1.0, 20.0, 50)
    statistics = {"typicality": values, "surprisal": values}
    calibration = Calibration.fit("0" * 64, statistics, {"typicality": values})
    return Chain(chain_spec(**section), calibration)


def turned(holder: Any, turn: Any) -> dict[str, Any]:
    """The fields whose last axes are the data's."""
    known = {field.name for field in fields(holder)}
    found = {name: getattr(holder, name) for name in TURNED if name in known}
    return {name: turn(value) for name, value in found.items() if value is not None}


def everything(ask: Request) -> Request:
    """With every map that the operation has."""
    extra = {"per_dimension": True, "score_map": True, "moments": True, "entropy": True}
    return replace(ask, parameters={**ask.parameters, **extra})


@pytest.mark.parametrize(("operation", "method"), CASES, ids=lambda case: getattr(case, "name", None))
def test_every_answer_is_the_chains_own_put_back(operation: Operation, method: Method) -> None:
    ask = asked(operation, method)
    if operation is not Operation.LIKELIHOOD:  # which has no map of terms under this mask
        ask = everything(ask)
    plain = chain().ask(ask)
    ordered = chain(order=PLACES).ask(replace(ask, **turned(ask, ORDER.to_data)))
    for field in fields(plain):
        wanted = getattr(plain, field.name)
        if field.name in TURNED and wanted is not None:
            wanted = ORDER.to_data(wanted)
        np.testing.assert_array_equal(getattr(ordered, field.name), wanted, err_msg=field.name)


def test_terms_of_a_likelihood_lie_where_their_symbols_do() -> None:
    data = np.random.default_rng(1).integers(0, 4, (2, 8)).astype(np.int32)
    ask = ask_for(Operation.LIKELIHOOD, "exact", 2, data=data, parameters={"per_dimension": True})
    plain = chain().ask(ask)
    ordered = chain(order=PLACES).ask(replace(ask, data=ORDER.to_data(data)))
    np.testing.assert_array_equal(ordered.log_prob_map, ORDER.to_data(plain.log_prob_map))  # type: ignore[union-attr, arg-type]


def test_rows_of_a_stream_are_put_back() -> None:
    def loop(of: Chain) -> Loop:
        first = next(of.family.program(ask_for(Operation.SAMPLE, "ancestral", 2)))
        assert isinstance(first, Loop)
        assert first.streamed is not None
        return first

    symbols = np.random.default_rng(2).integers(0, 4, (2, 8))
    state = {"symbols": torch.from_numpy(symbols), "lengths": torch.full((2,), 8), "reason": torch.zeros(2)}
    rows = np.arange(2)
    plain, _ = loop(chain()).streamed.data(rows, state)  # type: ignore[union-attr]
    ordered, _ = loop(chain(order=PLACES)).streamed.data(rows, state)  # type: ignore[union-attr]
    np.testing.assert_array_equal(ordered, ORDER.to_data(plain))
    assert not np.array_equal(ordered, plain)


def test_arrays_with_more_axes_keep_them() -> None:
    order = Order((0, 2, 1, 3), (2, 2))
    values = np.arange(24).reshape(2, 3, 2, 2)
    assert order.to_chain(values)[1, 2].tolist() == [[20, 22], [21, 23]]
    np.testing.assert_array_equal(order.to_data(order.to_chain(values)), values)


def test_an_order_names_every_place_once() -> None:
    with pytest.raises(ValueError, match="every place"):
        Autoregressive(vocabulary=4, begin_symbol=4, order=(0, 0, 1))
    with pytest.raises(PackageError, match="order has 3 places, but a row has 8 symbols"):
        check_components("model.yaml", chain_spec(order=(0, 2, 1)))
