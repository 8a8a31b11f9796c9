"""Schedulers of variance-preserving processes: DDPM, DDIM, PNDM, Euler, Heun, DPM-Solver++, UniPC, LMS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from export.diffusers.refusals import not_supported, unsupported
from export.diffusers.scheduled import Scheduled
from export.diffusers.schedulers.choices import Config, dpm_solver, last, one_of, spread, steps, without
from export.diffusers.schedulers.flows import flow_sigmas

PREDICTIONS = {"epsilon": "epsilon", "sample": "sample", "original_sample": "sample", "v_prediction": "v"}
VARIANCES = {
    "fixed_small": "fixed_small",
    "fixed_small_log": "fixed_small",
    "fixed_large": "fixed_large",
    "learned_range": "learned_range",
}
ALMOST_NO_SIGNAL = (
    2.0**-24
)  # power of the data's share that solvers over relative noise keep at the last step


def _process(config: Config) -> dict[str, Any]:
    prediction = one_of(config, "prediction_type", PREDICTIONS)
    if config.get("rescale_betas_zero_snr") and prediction == "epsilon":
        raise not_supported(
            config,
            "rescale_betas_zero_snr leaves no signal at the last step, where noise says nothing of the data",
            "Supported with it: prediction_type v_prediction, sample",
        )
    return {
        "schedule": {"kind": "vp", "betas": config["_betas"]},
        "prediction": prediction,
        "time_input": "step",
        "clipped_noise": "predicted",
    }


def _scheduled(config: Config, sampler: str, grid: dict[str, Any], **more: Any) -> Scheduled:
    """With the clipping that the configuration states; ``more`` are keys of the section, and ``notes``."""
    notes = list(more.pop("notes", ()))
    start = "unit" if grid.get("spacing") == "leading" else "level"
    if config.get("rescale_betas_zero_snr"):
        grid = {**grid, "least_signal": ALMOST_NO_SIGNAL}
    section = {"grid": {"start": start, **grid}, "default_sampler": sampler, **more}
    bound = float(config.get("clip_sample_range", 1.0)) if config.get("clip_sample") else None
    if config.get("thresholding"):
        bound, limit = None, float(config["sample_max_value"])
        if limit > 1.0:
            ratio = float(config["dynamic_thresholding_ratio"])
            section |= {"threshold_limit": limit, "threshold_default": ratio, "clip_range": [-1.0, 1.0]}
        else:
            bound = 1.0  # a bound that lies in [1, 1]
    return Scheduled(section, notes, bound)


def _ddpm(config: Config) -> Scheduled:
    variance = one_of(config, "variance_type", VARIANCES)
    grid, notes = steps(config), []
    if variance != "fixed_small" and (grid.get("spacing") == "trailing" or grid["offset"]):
        notes.append("the last step adds no noise here; that of diffusers does where it starts above step 0")
    sampler = "ddpm_large" if variance == "fixed_large" else "ddpm"
    more = _process(config) | {"variance": variance, "notes": notes}
    return _scheduled(config, sampler, grid, **more)


def _ddim(config: Config) -> Scheduled:
    end = "data" if config["set_alpha_to_one"] else "lowest"
    process = _process(config)
    return _scheduled(config, "ddim", {**steps(config), "last_step": end}, **process)


def _pndm(config: Config) -> Scheduled:
    note = (
        "PNDMScheduler extrapolates noise over four steps, which is not offered here: the default sampler is "
        "ddim over the same training steps (of first order); dpmpp_2m is of second"
    )
    end = "data" if config["set_alpha_to_one"] else "lowest"
    grid = {**steps(config), "last_step": end}
    return _scheduled(config, "ddim", grid, notes=[note], **_process(config))


def _noises(config: Config, sampler: str, **more: Any) -> Scheduled:
    """Those over relative noise."""
    end = {"last_noise": last(config)} if "final_sigmas_type" in config else {}
    grid = {**steps(config), **spread(config), **end, "time": "between"}
    return _scheduled(config, sampler, grid, **(_process(config) | more))


def _euler(config: Config) -> Scheduled:
    without(config, interpolation_type="linear")
    continuous = config["timestep_type"] == "continuous" and config["prediction_type"] == "v_prediction"
    more = {"time_input": "quarter_log_sigma"} if continuous else {}
    return _noises(config, "euler", **more)


def _euler_ancestral(config: Config) -> Scheduled:
    return _noises(config, "euler_ancestral")


def _heun(config: Config) -> Scheduled:
    return _noises(config, "heun")


def _lms(config: Config) -> Scheduled:
    note = (
        "LMSDiscreteScheduler extrapolates over four steps, which is not offered here: the default sampler "
        "is euler over the same levels (of first order); dpmpp_2m is of second"
    )
    return _noises(config, "euler", notes=[note])


def _multistep(config: Config, time: str) -> dict[str, Any]:
    found = {**spread(config), "time": time, "last_noise": last(config)}
    clipped = config.get("lambda_min_clipped", -float("inf"))
    if clipped > -float("inf"):
        kept = np.cumprod(1.0 - np.asarray(config["_betas"]))
        half_log_ratio = 0.5 * np.log(kept / (1.0 - kept))
        found["skipped"] = int(np.searchsorted(half_log_ratio[::-1], clipped))
    return found


def _dpm(config: Config) -> Scheduled:
    without(config, use_dynamic_shifting=False)
    sampler, solver = dpm_solver(config)
    if config["use_flow_sigmas"]:
        return flow_sigmas(config, sampler, solver)
    rounded = config["beta_schedule"] != "squaredcos_cap_v2" and not config["use_exponential_sigmas"]
    grid = {**steps(config), **_multistep(config, "nearest" if rounded else "lower")}
    learned = {"variance": "learned_range"} if config["variance_type"] == "learned_range" else {}
    if config["variance_type"] not in (None, "learned_range"):
        raise unsupported(config, "variance_type", config["variance_type"], [None, "learned_range"])
    return _scheduled(config, sampler, grid, solver=solver, **(_process(config) | learned))


def _singlestep(config: Config) -> Scheduled:
    without(config, use_flow_sigmas=False, algorithm_type="dpmsolver++", variance_type=None)
    sampler = one_of({**config, "solver_order": str(config["solver_order"])}, "solver_order",
                     {"1": "dpmpp_1m", "2": "dpmpp_2s"})  # fmt: skip
    rule = one_of(config, "solver_type", {"midpoint": "midpoint", "heun": "heun"})
    time = "lower" if config["use_exponential_sigmas"] else "nearest"
    grid = {"spacing": "linspace", **_multistep(config, time)}
    solver = {"lower_order_final": bool(config["lower_order_final"]), "rule": rule}
    return _scheduled(config, sampler, grid, solver=solver, **_process(config))


def _unipc(config: Config) -> Scheduled:
    without(config, predict_x0=True, disable_corrector=[], solver_p=None, use_dynamic_shifting=False)
    without(config, shift_terminal=None)
    orders = {"2": "unipc", "3": "unipc_3"}
    sampler = one_of({**config, "solver_order": str(config["solver_order"])}, "solver_order", orders)
    rule = one_of(config, "solver_type", {"bh1": "bh1", "bh2": "bh2"})
    solver = {"lower_order_final": bool(config["lower_order_final"]), "unipc_rule": rule}
    if config["use_flow_sigmas"]:
        without(config, use_karras_sigmas=False, use_exponential_sigmas=False, final_sigmas_type="zero")
        return flow_sigmas(config, sampler, solver)
    grid = {**steps(config), **_multistep(config, "lower" if config["use_exponential_sigmas"] else "nearest")}
    if "spread" in grid:
        without(config, final_sigmas_type="zero")
    return _scheduled(config, sampler, grid, solver=solver, **_process(config))


READERS: dict[str, Callable[[Config], Scheduled]] = {
    "DDPMScheduler": _ddpm,
    "DDPMParallelScheduler": _ddpm,
    "DDIMScheduler": _ddim,
    "DDIMParallelScheduler": _ddim,
    "PNDMScheduler": _pndm,
    "EulerDiscreteScheduler": _euler,
    "EulerAncestralDiscreteScheduler": _euler_ancestral,
    "HeunDiscreteScheduler": _heun,
    "LMSDiscreteScheduler": _lms,
    "DPMSolverMultistepScheduler": _dpm,
    "DPMSolverSinglestepScheduler": _singlestep,
    "UniPCMultistepScheduler": _unipc,
}
