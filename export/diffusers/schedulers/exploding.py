"""Schedulers of variance-exploding processes: score SDEs (Song et al. 2021), and EDM (Karras et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from export.diffusers.scheduled import Scheduled
from export.diffusers.schedulers.choices import Config, dpm_solver, one_of, without

CORRECTOR = (
    "ScoreSdeVeScheduler takes the step of its corrector from norms averaged over the batch, so that rows "
    "meet; the corrector here takes the step that those norms have in the mean, for each row alone"
)


def _score(config: Config) -> Scheduled:
    low, high = float(config["sigma_min"]), float(config["sigma_max"])
    sigmas = np.exp(np.linspace(np.log(low), np.log(high), int(config["num_train_timesteps"])))
    corrects = int(config["correct_steps"]) > 0
    section = {
        "schedule": {"kind": "ve", "sigmas": sigmas.tolist()},
        "prediction": "score",
        "time_input": "sigma",
        "grid": {
            "spread": "exponential",
            "lowest": low,
            "highest": high,
            "time_edge": float(config["sampling_eps"]),
            "start": "level",
        },
        "default_sampler": "predictor_corrector" if corrects else "reverse_diffusion",
    }
    return Scheduled(section, [CORRECTOR] if corrects else [], unit_range=True)


def _edm(config: Config, sampler: str, **more: Any) -> Scheduled:
    without(config, final_sigmas_type="zero")
    low, high, rho = (float(config[key]) for key in ("sigma_min", "sigma_max", "rho"))
    shape = one_of(config, "sigma_schedule", {"karras": "karras", "exponential": "exponential"})
    place = np.linspace(0.0, 1.0, int(config["num_train_timesteps"]))
    ends = (low ** (1 / rho), high ** (1 / rho))
    karras = (ends[0] + place * (ends[1] - ends[0])) ** rho
    sigmas = karras if shape == "karras" else low * (high / low) ** place
    section = {
        "schedule": {"kind": "ve", "sigmas": sigmas.tolist()},
        "prediction": one_of(config, "prediction_type", {"epsilon": "edm", "v_prediction": "edm_negated"}),
        "time_input": "quarter_log_sigma",
        "input_scale": "edm",
        "sigma_data": float(config["sigma_data"]),
        "grid": {"spread": shape, "rho": rho, "lowest": low, "highest": high, "start": "rms"},
        "default_sampler": sampler,
        **more,
    }
    return Scheduled(section)


def _edm_euler(config: Config) -> Scheduled:
    return _edm(config, "euler")


def _edm_dpm(config: Config) -> Scheduled:
    without(config, thresholding=False)
    sampler, solver = dpm_solver(config)
    return _edm(config, sampler, solver=solver)


READERS: dict[str, Callable[[Config], Scheduled]] = {
    "ScoreSdeVeScheduler": _score,
    "EDMEulerScheduler": _edm_euler,
    "EDMDPMSolverMultistepScheduler": _edm_dpm,
}
