"""Schedulers of straight paths: flow matching with a shift (Esser et al. 2024), solvers over flow times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from export.diffusers.refusals import unsupported
from export.diffusers.scheduled import Scheduled
from export.diffusers.schedulers.choices import Config, last, spread, without


def _process(config: Config) -> dict[str, Any]:
    return {
        "schedule": {"kind": "flow", "training_steps": int(config["num_train_timesteps"])},
        "prediction": "flow",
        "time_input": "step",
    }


def _euler(config: Config) -> Scheduled:
    without(config, use_dynamic_shifting=False, invert_sigmas=False, stochastic_sampling=False)
    grid = {"shift": float(config["shift"]), **spread(config)}
    if config.get("shift_terminal"):
        grid["terminal"] = float(config["shift_terminal"])
    return Scheduled({**_process(config), "grid": grid, "default_sampler": "euler"})


def _heun(config: Config) -> Scheduled:
    grid = {"shift": float(config["shift"])}
    return Scheduled({**_process(config), "grid": grid, "default_sampler": "heun"})


def flow_sigmas(config: Config, sampler: str, solver: dict[str, Any]) -> Scheduled:
    """A multistep solver over flow times."""
    if config["prediction_type"] != "flow_prediction":
        raise unsupported(config, "prediction_type with use_flow_sigmas", config["prediction_type"],
                          ["flow_prediction"])  # fmt: skip
    without(config, use_karras_sigmas=False, use_exponential_sigmas=False, use_beta_sigmas=False)
    without(config, thresholding=False)
    if last(config) != "data":
        raise unsupported(config, "final_sigmas_type with use_flow_sigmas", "sigma_min", ["zero"])
    grid = {"shift": float(config["flow_shift"])}
    return Scheduled({**_process(config), "grid": grid, "solver": solver, "default_sampler": sampler})


READERS: dict[str, Callable[[Config], Scheduled]] = {
    "FlowMatchEulerDiscreteScheduler": _euler,
    "FlowMatchHeunDiscreteScheduler": _heun,
}
