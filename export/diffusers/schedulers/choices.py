"""Choices that several schedulers share; those without a counterpart here are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from export.diffusers.refusals import not_supported, unsupported

Config = Mapping[str, Any]
ORDERS = {1: "dpmpp_1m", 2: "dpmpp_2m", 3: "dpmpp_3m"}


def one_of(config: Config, key: str, known: Mapping[str, Any]) -> Any:
    """What ``known`` says of the configuration's choice; UNSUPPORTED_NETWORK where it does not know it."""
    value = config.get(key)
    if value not in known:
        raise unsupported(config, key, value, known)
    return known[str(value)]


def without(config: Config, **off: object) -> None:
    """Each key is absent, or has the value that switches it off; UNSUPPORTED_NETWORK else."""
    for key, value in off.items():
        if config.get(key, value) != value:
            raise unsupported(config, key, config[key], [value])


def steps(config: Config) -> dict[str, Any]:
    """``spacing`` and ``offset`` of a grid over training steps."""
    known = {name: name for name in ("trailing", "leading", "linspace")}
    stated = "timestep_spacing" in config["_stated"]
    found = {"spacing": one_of(config, "timestep_spacing", known)} if stated else {}
    return {**found, "offset": int(config.get("steps_offset", 0))}


def spread(config: Config) -> dict[str, Any]:
    """Levels between training steps, and their ends."""
    if config.get("use_beta_sigmas"):
        raise not_supported(
            config, "use_beta_sigmas is not supported", "Supported: use_karras_sigmas, use_exponential_sigmas"
        )
    found: dict[str, Any] = {}
    if config.get("use_karras_sigmas"):
        found["spread"] = "karras"
    elif config.get("use_exponential_sigmas") or config.get("use_lu_lambdas"):
        found["spread"] = "exponential"
    for key, name in (("sigma_min", "lowest"), ("sigma_max", "highest")):
        if found and config.get(key) is not None:
            found[name] = float(config[key])
    return found


def last(config: Config) -> str:
    """Where samplers over relative noise arrive."""
    found: str = one_of(config, "final_sigmas_type", {"zero": "data", "sigma_min": "lowest"})
    return found


def dpm_solver(config: Config) -> tuple[str, dict[str, Any]]:
    """The sampler and its solver of a multistep DPM-Solver++."""
    stochastic = one_of(config, "algorithm_type", {"dpmsolver++": False, "sde-dpmsolver++": True})
    order, rule = (
        config["solver_order"],
        one_of(config, "solver_type", {"midpoint": "midpoint", "heun": "heun"}),
    )
    if stochastic and order != 2:
        raise unsupported(config, "solver_order of sde-dpmsolver++", order, [2])
    if order not in ORDERS:
        raise unsupported(config, "solver_order", order, ORDERS)
    solver = {
        "lower_order_final": bool(config["lower_order_final"]),
        "euler_at_final": bool(config.get("euler_at_final", False)),
        "rule": rule,
    }
    return "sde_dpmpp_2m" if stochastic else ORDERS[order], solver
