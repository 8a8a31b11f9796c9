"""Kernels compiled for sm_80, sm_90, sm_100 with no GPU: no spills, bounded registers, wide loads."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from typing import Any

import pytest
import torch

from kernels import (
    _likelihood_kernels,
    attention,
    denoise,
    image,
    linear_logprob,
    logprobs,
    philox,
    token_sampling,
)
from tests.kernels.cubin import Build, MachineCode, compile_for

pytestmark = [
    pytest.mark.aot,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no triton"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"),
]

ARCHITECTURES = (80, 90, 100)
LIKELIHOOD = "kernels._likelihood_kernels"
DTYPES = {"*fp32": torch.float32, "*fp16": torch.float16, "*bf16": torch.bfloat16}


def denoise_build(
    output: str, guided: bool, history: int, inpainted: bool, drawn: bool, direct: bool = False
) -> Build:
    block, warps = denoise.configuration(3 * 32 * 32)
    types = {"x_ptr": "*fp32", "output_ptr": output, "table_ptr": "*fp32", "next_ptr": "*fp32",
             "x0_ptr": "*fp32", "n": "i32", "output_stride": "i32"}  # fmt: skip
    constants: dict[str, Any] = {
        "HISTORY": history,
        "DIRECT": direct,
        "BLOCK": block,
        "noise_ptr": None,
        "renoise_ptr": None,
    }
    optional = {"unconditional_ptr": ("*i64", guided), "history_ptr": ("*fp32", history > 0),
                "known_ptr": ("*fp32", inpainted), "observed_ptr": ("*i1", inpainted)}  # fmt: skip
    optional |= {f"{name}_ptr": ("*i64", drawn) for name in ("seed", "row", "line", "particle")}
    for name, (kind, present) in optional.items():
        if present:
            types[name] = kind
        else:
            constants[name] = None
    aligned = ("n", "output_stride")
    return Build("kernels.denoise", "_denoise_kernel", types, constants, warps, aligned=aligned, fusion=False)


def rows_build(output: str, given: bool) -> Build:
    block, warps = denoise.configuration(3 * 32 * 32)
    types = {"x_ptr": "*fp32", "x0_ptr": "*fp32", "lines_ptr": "*fp32", "positions_ptr": "*i64",
             "output_ptr": output, "network_x_ptr": "*fp32", "network_t_ptr": "*fp32", "bad_ptr": "*i32",
             "n": "i32", "output_stride": "i32", "state_stride": "i32", "last_line": "i32"}  # fmt: skip
    constants: dict[str, Any] = {"BLOCK": block}
    if given:
        types |= {"known_ptr": "*fp32", "observed_ptr": "*i1"}
    else:
        constants |= {"known_ptr": None, "observed_ptr": None}
    aligned = ("n", "output_stride", "state_stride")
    return Build("kernels.rows", "_rows_kernel", types, constants, warps, aligned=aligned, fusion=False)


def sampling_build(size: int, logits: str) -> Build:
    resident, block, warps = token_sampling.configuration(size)
    types = {"logits_ptr": logits, "temperature_ptr": "*fp32", "top_k_ptr": "*i64", "top_p_ptr": "*fp32",
             "min_p_ptr": "*fp32", "token_ptr": "*i64", "raw_ptr": "*fp32", "processed_ptr": "*fp32",
             "size": "i32", "stride": "i32"}  # fmt: skip
    types |= {f"{name}_ptr": "*i64" for name in ("seed", "row", "position", "particle")}
    kernel = "_row_kernel" if resident else "_tiled_kernel"
    aligned = ("size", "stride") if size % 16 == 0 else ()
    module = "kernels.token_sampling"
    return Build(module, kernel, types, {"BLOCK": block}, warps, aligned=aligned, fusion=False)


def gather_build(logits: str) -> Build:
    block, warps = logprobs.configuration(50_257)
    types = {"logits_ptr": logits, "ids_ptr": "*i64", "out_ptr": "*fp32", "size": "i32", "count": "i32",
             "stride": "i32"}  # fmt: skip
    return Build("kernels.logprobs", "_gather_kernel", types, {"IDS": 1, "BLOCK": block}, warps)


def linear_build(weights: str) -> Build:
    tile = linear_logprob.configuration(DTYPES[weights])
    types = {"hidden_ptr": weights, "weight_ptr": weights, "bias_ptr": weights, "target_ptr": "*i64",
             "highest_ptr": "*fp32", "mass_ptr": "*fp32", "chosen_ptr": "*fp32", "rows": "i32", "size": "i32",
             "width": "i32"}  # fmt: skip
    constants = {"ROWS": tile.rows, "VOCABULARY": tile.vocabulary, "WIDTH": tile.width, "UPCAST": False}
    module = "kernels.linear_logprob"
    return Build(module, "_tile_kernel", types, constants, tile.warps, tile.stages, ("width",))


def attention_build(cache: str, width: int, group: int) -> Build:
    block, warps = attention.configuration(width, DTYPES[cache])
    types = {"query_ptr": cache, "key_ptr": cache, "value_ptr": cache, "length_ptr": "*i64",
             "slot_ptr": "*i64", "mean_ptr": "*fp32", "log_mass_ptr": "*fp32", "scale": "fp32",
             "max_length": "i32"}  # fmt: skip
    constants = {"KV_HEADS": 8, "GROUP": group, "GROUP_BLOCK": 16, "WIDTH": width, "WIDTH_BLOCK": width,
                 "SPLIT_SIZE": attention.SPLIT, "BLOCK": block, "UPCAST": False}  # fmt: skip
    return Build("kernels.attention", "_split_kernel", types, constants, warps, 2, ("max_length",))


def likelihood_build(kind: str) -> Build:
    block, warps = _likelihood_kernels.configuration(3072)
    types = {"x_ptr": "*fp32", "mean_ptr": "*fp32", "log_scale_ptr": "*fp32", "out_ptr": "*fp64",
             "particles": "i32", "n": "i32"}  # fmt: skip
    constants = {"HALF_WIDTH": 1 / 255, "LOWEST": -1.0, "HIGHEST": 1.0, "KIND": kind, "BLOCK": block}
    return Build(LIKELIHOOD, "_row_log_prob_kernel", types, constants, warps, aligned=("n",))


def categorical_build() -> Build:
    types = {"logits_ptr": "*fp32", "level_ptr": "*i64", "out_ptr": "*fp64", "particles": "i32",
             "levels": "i32", "n": "i32"}  # fmt: skip
    return Build(LIKELIHOOD, "_categorical_kernel", types, {"BLOCK": 512}, 4, aligned=("n",))


def weight_build() -> Build:
    types = {"z_ptr": "*fp32", "mean_ptr": "*fp32", "log_variance_ptr": "*fp32",
             "log_likelihood_ptr": "*fp64", "out_ptr": "*fp64", "particles": "i32", "n": "i32"}  # fmt: skip
    return Build(LIKELIHOOD, "_log_weight_kernel", types, {"BLOCK": 128}, 1, aligned=("n",))


def mean_exp_build() -> Build:
    types = {"log_weight_ptr": "*fp64", "value_ptr": "*fp64", "error_ptr": "*fp64", "size_ptr": "*fp64",
             "count": "i32"}  # fmt: skip
    return Build(LIKELIHOOD, "_log_mean_exp_kernel", types, {"BLOCK": 512}, 4)


def philox_build() -> Build:
    block, warps = philox.configuration(3072)
    types = {"seed_ptr": "*i64", "row_ptr": "*i64", "line_ptr": "*i64", "stream_ptr": "*i64",
             "out_ptr": "*fp32", "steps": "i32", "n": "i32"}  # fmt: skip
    constants = {"KIND": "normal", "BLOCK": block}
    return Build("kernels.philox", "_philox_kernel", types, constants, warps, aligned=("n",), fusion=False)


def image_build() -> Build:
    block, warps = image.configuration(3 * 64 * 64)
    types = {"x_ptr": "*fp32", "out_ptr": "*u8", "scale": "fp32", "shift": "fp32", "highest": "fp32",
             "pixels": "i32"}  # fmt: skip
    constants = {"CHANNELS": 3, "BLOCK": block}
    return Build("kernels.image", "_image_kernel", types, constants, warps, aligned=("pixels",), fusion=False)


# name: (build, most registers, least 128-bit loads, most shared memory in kB)
BUILDS: dict[str, tuple[Build, int, int, int]] = {
    "denoise": (denoise_build("*fp32", False, 0, False, True), 96, 8, 0),
    "denoise deterministic": (denoise_build("*fp32", False, 0, False, False), 64, 8, 0),
    "denoise direct": (denoise_build("*fp32", False, 0, False, False, direct=True), 64, 8, 0),
    "denoise everything": (denoise_build("*bf16", True, 3, True, True), 200, 20, 16),
    "denoise_rows": (rows_build("*fp32", False), 168, 20, 16),
    "denoise_rows everything": (rows_build("*bf16", True), 200, 20, 16),
    "philox normal": (philox_build(), 64, 0, 0),
    "sample_tokens 1,024": (sampling_build(1024, "*fp32"), 128, 2, 1),
    "sample_tokens 8,192": (sampling_build(8192, "*fp32"), 128, 4, 1),
    "sample_tokens 50,257": (sampling_build(50_257, "*bf16"), 128, 0, 1),
    "gather_logprobs bf16": (gather_build("*bf16"), 96, 4, 1),
    "gather_logprobs fp32": (gather_build("*fp32"), 96, 8, 1),
    "linear_logprob bf16": (linear_build("*bf16"), 240, 0, 100),
    "linear_logprob fp32": (linear_build("*fp32"), 192, 0, 100),
    "decode_attention bf16 128": (attention_build("*bf16", 128, 4), 128, 1, 64),
    "decode_attention fp32 64": (attention_build("*fp32", 64, 1), 128, 1, 64),
    "row_log_prob gaussian": (likelihood_build("gaussian"), 64, 3, 1),
    "row_log_prob discretized_gaussian": (likelihood_build("discretized_gaussian"), 128, 3, 1),
    "row_log_prob discretized_logistic": (likelihood_build("discretized_logistic"), 128, 3, 1),
    "categorical_log_prob": (categorical_build(), 128, 2, 1),
    "gaussian_log_weight": (weight_build(), 96, 3, 1),
    "log_mean_exp": (mean_exp_build(), 96, 0, 1),
    "image_to_uint8": (image_build(), 64, 0, 1),
}


# Elsewhere one architecture speaks for all: what differs between them is matrix units and loads in flight.
EVERYWHERE = ("denoise", "sample_tokens 8", "sample_tokens 5", "gather", "linear", "decode", "row_log_prob d")
PAIRS = [
    (name, architecture)
    for name in BUILDS
    for architecture in (ARCHITECTURES if name.startswith(EVERYWHERE) else (90,))
]


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDS)
def test_sizes_of_one_compile_too(name: str) -> None:
    """Triton turns an integer argument of value 1 into a constant, of another type inside the kernel."""
    build = BUILDS[name][0]
    sizes = {argument: 1 for argument, kind in build.types.items() if kind == "i32"}
    types = {argument: kind for argument, kind in build.types.items() if argument not in sizes}
    compile_for(replace(build, types=types, constants={**build.constants, **sizes}, aligned=()), 90)


@pytest.mark.parametrize(("name", "architecture"), PAIRS)
def test_kernel_compiles_without_spills_within_its_bounds(name: str, architecture: int) -> None:
    build, registers, wide_loads, shared_kib = BUILDS[name]
    code: MachineCode = compile_for(build, architecture)
    assert code.spills == 0
    assert code.stack_bytes == 0
    assert code.registers <= registers
    assert code.count("LDG.E.128") >= wide_loads
    assert code.shared_bytes <= shared_kib * 1024
    if name.startswith("linear_logprob bf16"):
        assert code.count({80: "HMMA", 90: "HGMMA", 100: "UTC"}[architecture]) > 0
    if name.startswith("decode_attention bf16"):
        assert code.count("HMMA") > 0
