from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.errors import InvalidArgument
from serving.families.request import Operation
from serving.families.result import FinishReason, Result, Sampled, SampleKind, Scored
from tests.analytic.ar.chains import START, STEP, SYMBOLS, Chain, chain_spec, log_prob, request


def sampled(result: Result) -> Sampled:
    assert isinstance(result, Sampled)
    return result


def transitions(data: NDArray[np.int32]) -> NDArray[np.int64]:
    pairs = data[:, :-1].astype(np.int64) * SYMBOLS + data[:, 1:]
    return np.bincount(pairs.reshape(-1), minlength=SYMBOLS**2).reshape(SYMBOLS, SYMBOLS)


@pytest.mark.parametrize("shifted", [True, False])
def test_samples_follow_the_chain(shifted: bool) -> None:
    chain = Chain(chain_spec(shifted_input=shifted))
    result = sampled(chain.ask(request(Operation.SAMPLE, "ancestral", 4000)))
    data = result.data.astype(np.int32)
    assert result.kind is SampleKind.EXACT
    first = np.bincount(data[:, 0], minlength=SYMBOLS) / 4000
    assert (np.abs(first - START) < 4.9 * np.sqrt(START * (1 - START) / 4000)).all()
    count = transitions(data)
    frequency, total = count / count.sum(1, keepdims=True), count.sum(1, keepdims=True)
    assert (np.abs(frequency - STEP) < 4.9 * np.sqrt(STEP * (1 - STEP) / total)).all()


def test_log_prob_of_samples_is_their_likelihood() -> None:
    chain = Chain()
    result = sampled(chain.ask(request(Operation.SAMPLE, "ancestral", 100, parameters={"temperature": 0.7})))
    truth = np.array([log_prob(row) for row in result.data.astype(np.int32)])
    assert result.log_prob is not None
    assert result.sampling_log_prob is not None
    np.testing.assert_allclose(result.log_prob, truth, atol=1e-5)
    scored = chain.ask(request(Operation.LIKELIHOOD, "exact", 100, data=result.data))
    assert isinstance(scored, Scored)
    np.testing.assert_allclose(result.log_prob, scored.log_prob, atol=1e-5)
    tempered = STEP ** (1 / 0.7)
    tempered /= tempered.sum(1, keepdims=True)
    start = START ** (1 / 0.7) / (START ** (1 / 0.7)).sum()
    rows = result.data.astype(np.int32)
    processed = np.log(start[rows[:, 0]]) + np.log(tempered[rows[:, :-1], rows[:, 1:]]).sum(1)
    np.testing.assert_allclose(result.sampling_log_prob, processed, atol=1e-4)


def test_temperature_zero_takes_the_likeliest_symbol() -> None:
    result = sampled(Chain().ask(request(Operation.SAMPLE, "ancestral", 3, parameters={"temperature": 0.0})))
    assert (result.data == 0).all()
    assert result.kind is SampleKind.MODIFIED


@pytest.mark.parametrize(
    ("parameters", "kept"),
    [({"top_k": 2}, 2), ({"top_p": 0.86}, 2), ({"min_p": 0.2}, 1), ({"top_k": 3, "top_p": 0.85}, 1)],
)
def test_truncation_keeps_the_likeliest_symbols(parameters: dict[str, float], kept: int) -> None:
    ask = request(Operation.SAMPLE, "ancestral", 2000, parameters=parameters)
    result = sampled(Chain().ask(ask))
    seen = transitions(result.data.astype(np.int32))[0] > 0
    assert seen.sum() == kept
    assert seen[np.argsort(-STEP[0])[:kept]].all()
    assert result.kind is SampleKind.MODIFIED


def test_a_prompt_is_kept_and_continued() -> None:
    prompt = np.array([[3, 3, 2]], np.int32).repeat(500, 0)
    result = sampled(Chain().ask(request(Operation.SAMPLE, "ancestral", 500, data=prompt)))
    assert (result.data[:, :3] == prompt).all()
    share = np.bincount(result.data[:, 3].astype(np.int64), minlength=4) / 500
    assert (np.abs(share - STEP[2]) < 4.9 * np.sqrt(STEP[2] * (1 - STEP[2]) / 500)).all()
    assert result.log_prob is not None
    rest = np.array([log_prob(row) for row in result.data.astype(np.int32)]) - log_prob(prompt[0])
    np.testing.assert_allclose(result.log_prob, rest, atol=1e-5)


def test_a_prompt_that_is_no_prefix_is_refused() -> None:
    observed = np.array([[True, False, True, False, False, False, False, False]])
    data = np.zeros((1, 8), np.int32)
    ask = request(Operation.SAMPLE, "ancestral", 1, data=data, observed=observed)
    with pytest.raises(InvalidArgument, match="prefix"):
        Chain().ask(ask)


def test_a_class_condition_selects_the_begin_symbol() -> None:
    spec = chain_spec(begin_condition="label", begin_offset=0)
    label = np.full(3000, 2)
    ask = request(Operation.SAMPLE, "ancestral", 3000, conditions={"label": label})
    first = np.bincount(sampled(Chain(spec).ask(ask)).data[:, 0].astype(np.int64), minlength=4) / 3000
    assert (np.abs(first - STEP[2]) < 4.9 * np.sqrt(STEP[2] * (1 - STEP[2]) / 3000)).all()


def test_rows_depend_on_seed_and_row_only() -> None:
    whole = sampled(Chain().ask(request(Operation.SAMPLE, "ancestral", 10, 7)))
    part = sampled(Chain(capacity=2).ask(request(Operation.SAMPLE, "ancestral", 3, 7, first_row=4)))
    assert (whole.data[4:7] == part.data).all()
    assert whole.log_prob is not None
    assert part.log_prob is not None
    assert (whole.log_prob[4:7] == part.log_prob).all()
    other = sampled(Chain().ask(request(Operation.SAMPLE, "ancestral", 10, 8)))
    assert (whole.data != other.data).any()


def test_an_end_symbol_stops_the_row_and_is_left_out() -> None:
    chain = Chain(chain_spec((-1,), end_symbol=3))
    result = sampled(chain.ask(request(Operation.SAMPLE, "ancestral", 300)))
    assert result.lengths is not None
    stopped = np.array([reason is FinishReason.STOP for reason in result.finish_reasons])
    assert 0 < stopped.sum() < 300
    assert (result.lengths[~stopped] == 40).all()
    assert result.data.shape == (300, result.lengths.max())
    for row, length in zip(result.data, result.lengths, strict=True):
        assert 3 not in row[:length]
        assert not row[length:].any()
    assert result.log_prob is not None
    row, length = result.data[stopped][0].astype(np.int32), int(result.lengths[stopped][0])
    assert result.log_prob[stopped][0] == pytest.approx(log_prob(np.append(row[:length], 3)), abs=1e-5)


def test_rows_end_at_max_new_tokens() -> None:
    prompt = np.array([[0, 1, 2, 3, 0], [1, 2, 0, 0, 0]], np.int32)
    lengths = np.array([5, 2], np.int32)
    ask = request(
        Operation.SAMPLE, "ancestral", 2, data=prompt, lengths=lengths, parameters={"max_new_tokens": 6}
    )
    result = sampled(Chain(chain_spec((-1,))).ask(ask))
    assert result.lengths is not None
    assert result.lengths.tolist() == [11, 8]
    assert result.finish_reasons == (FinishReason.LENGTH, FinishReason.LENGTH)
    assert (result.data[1, :2] == [1, 2]).all()


def test_stop_strings_end_the_row_and_are_left_out() -> None:
    chain = Chain(chain_spec((-1,), tokenizer="bytes"))
    parameters = {"stop": ("\x01\x02", "\x03\x03\x03")}
    prompt = np.array([[3, 3]], np.int32).repeat(200, 0)
    ask = request(Operation.SAMPLE, "ancestral", 200, data=prompt, parameters=parameters)
    result = sampled(chain.ask(ask))
    assert result.lengths is not None
    stopped = np.array([reason is FinishReason.STOP for reason in result.finish_reasons])
    assert stopped.sum() > 150
    for row, length in zip(result.data, result.lengths, strict=True):
        new = bytes(row[2:length].astype(np.uint8))
        assert b"\x01\x02" not in new
        assert b"\x03\x03\x03" not in new
    longest = int(result.lengths[stopped].max())
    assert longest > 3


def test_prompts_that_leave_nothing_to_draw_return_as_they_are() -> None:
    data = np.array([[0, 1, 2, 3, 0, 1, 2, 3]], np.int32)
    result = sampled(Chain().ask(request(Operation.SAMPLE, "ancestral", 1, data=data)))
    assert (result.data == data).all()
    assert result.log_prob is not None
    assert result.log_prob[0] == 0.0
