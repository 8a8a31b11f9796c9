from __future__ import annotations

import numpy as np
import pytest
import torch

from serving.errors import InvalidArgument
from serving.families.autoregressive.noise import below, choose, stratified, uniforms
from serving.families.autoregressive.particles import systematic
from serving.families.autoregressive.sampling import SymbolsSoFar
from serving.families.autoregressive.stopping import MAX_STOP_LENGTH, matched, patterns
from serving.families.calibration import Calibration
from serving.families.capability import Method
from serving.families.request import Operation, Request
from tests.analytic.ar.chains import Chain, chain_spec, request

DATA = np.random.default_rng(0).integers(0, 4, (3, 8)).astype(np.int32)


def asked(operation: Operation, method: Method) -> Request:
    parameters = {p.name: p.default for p in method.parameters if p.default is not None}
    fields: dict[str, object] = {}
    if operation is Operation.DECODE:
        fields["latents"] = np.zeros((3, 8), np.float32)
    elif operation is not Operation.SAMPLE:
        fields["data"] = DATA
    if operation is Operation.INTERPOLATE:
        fields["end"] = DATA[::-1].copy()
    if operation in (Operation.INPAINT, Operation.LIKELIHOOD):
        fields["observed"] = np.arange(24).reshape(3, 8) % 3 != 1
    return Request(operation, method.name, parameters, 1, 0, 3, **fields)  # type: ignore[arg-type]


def calibrated() -> Chain:
    values = np.linspace(1.0, 20.0, 50)
    statistics = {"typicality": values, "surprisal": values}
    return Chain(calibration=Calibration.fit("0" * 64, statistics, {"typicality": values}))


CASES = [
    (capability.operation, method)
    for capability in Chain().family.capabilities()
    for method in capability.methods
]


@pytest.mark.parametrize(("operation", "method"), CASES, ids=lambda case: getattr(case, "name", None))
def test_every_method_that_is_listed_answers_within_its_predicted_rows(
    operation: Operation, method: Method
) -> None:
    chain = calibrated()
    ask = asked(operation, method)
    chain.ask(ask)
    assert 0 < chain.network.rows <= chain.family.network_rows(ask)["scorer"]
    assert 0 < chain.network.runs <= chain.family.depth(ask)


def test_capabilities_cover_the_operations_in_order() -> None:
    assert [c.operation for c in Chain().family.capabilities()] == list(Operation)
    assert all(c.supported for c in Chain().family.capabilities())
    text = Chain(chain_spec((-1,), tokenizer="bytes")).family.capabilities()
    refused = [c.operation for c in text if not c.supported]
    assert refused == [Operation.ENCODE, Operation.DECODE, Operation.RECONSTRUCT, Operation.INTERPOLATE]
    assert all("use " in c.reason for c in text if not c.supported)
    assert all("observed" in {p.name for p in method.parameters} for method in text[1].methods)
    names = [p.name for p in text[0].default.parameters]
    assert names == ["temperature", "top_k", "top_p", "min_p", "prompt", "max_new_tokens", "stop"]


def test_a_graph_of_fixed_width_is_run_at_that_width() -> None:
    spec = chain_spec()
    scorer = spec.components["scorer"]
    ports = tuple(port.model_copy(update={"shape": ("rows", 8)}) for port in scorer.inputs)
    fixed = spec.model_copy(update={"components": {"scorer": scorer.model_copy(update={"inputs": ports})}})
    widths = Chain(fixed).family.alphabet.width(np.array([1, 5, 8]))
    assert widths.tolist() == [8, 8, 8]


def test_network_widths_are_few_and_depend_on_the_row_alone() -> None:
    alphabet = Chain(chain_spec((1000,))).family.alphabet
    widths = alphabet.width(np.arange(1, 1001))
    assert len(np.unique(widths)) <= 8
    assert (widths >= np.arange(1, 1001)).all()
    assert widths.max() == 1000


def test_previews_hold_symbols_so_far() -> None:
    chain = Chain(chain_spec((-1,)))
    state = {"symbols": torch.tensor([[1, 2, 3, 0], [2, 0, 0, 0]]), "lengths": torch.tensor([3, 1])}
    data, lengths = SymbolsSoFar(chain.family.alphabet).data(np.arange(2), state)
    assert data.tolist() == [[1, 2, 3], [2, 0, 0]]
    assert lengths is not None
    assert lengths.tolist() == [3, 1]


def test_systematic_resampling_gives_each_particle_its_share() -> None:
    weights = np.array([[0.5, 0.25, 0.125, 0.125]])
    ancestors = systematic(np.log(weights).repeat(1000, 0), (np.arange(1000) + 0.5) / 1000)
    assert (np.sort(ancestors, axis=1) == ancestors).all()
    share = np.bincount(ancestors.reshape(-1), minlength=4) / 4000
    np.testing.assert_allclose(share, weights[0], atol=1e-3)
    counts = np.stack([np.bincount(row, minlength=4) for row in ancestors])
    assert (np.abs(counts - 4 * weights) < 1.0).all()


def test_choices_never_take_a_symbol_without_mass() -> None:
    law = np.log(np.array([[0.5, 0.5, 1e-300], [1e-300, 1.0, 1.0]]) + 0.0)
    law[0, 2] = law[1, 0] = -np.inf
    assert choose(law, np.array([1.0 - 1e-16, 1e-300])).tolist() == [1, 1]
    assert below(np.array([[0.0, 1.0, 1.0]]), np.array([0.0])).tolist() == [1]


def test_strata_hold_one_uniform_each_and_do_not_depend_on_neighbours() -> None:
    ask = request(Operation.SAMPLE, "ancestral", 4, 2**63 + 11)
    row, line = np.arange(4), np.full(4, 7)
    drawn = stratified(ask, row, line, 3, np.zeros(4, np.int64), 50)
    assert (np.sort(np.floor(drawn * 50), axis=1) == np.arange(50)).all()
    assert (stratified(ask, row[2:3], line[:1], 3, np.zeros(1, np.int64), 50) == drawn[2:3]).all()
    single = uniforms(ask, row, line, 3, np.zeros(4, np.int64))
    assert ((single > 0) & (single < 1)).all()
    assert len(np.unique(single)) == 4


def test_stop_patterns_match_at_the_end_and_not_inside_the_prompt() -> None:
    table = np.stack([patterns(("ab", "xyz"))] * 3)
    tail = np.full((3, MAX_STOP_LENGTH), -2)
    tail[0, -2:] = [97, 98]
    tail[1, -3:] = [120, 121, 122]
    tail[2, -2:] = [97, 98]
    assert matched(tail, table, np.array([5, 3, 1])).tolist() == [2, 3, 0]


@pytest.mark.parametrize("stop", [("",), ("x" * 65,), ("a", "b", "c", "d", "e")])
def test_stop_strings_that_cannot_be_watched_are_refused(stop: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument, match="stop"):
        patterns(stop)
