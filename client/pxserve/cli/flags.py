"""Flags of each subcommand, made from the client's own signatures: every parameter is a flag."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pxserve import administration, operations
from pxserve.cli import bench, connect, health
from pxserve.options import hints, signature

HELP = {
    "version": "model version (default: the model's default version)",
    "request_id": "sent as x-request-id",
    "timeout_s": "deadline in seconds",
    "priority": "higher goes first, as far as the token allows; below 0: after everybody",
    "seed": "same seed, same answer (default: drawn by the server)",
    "first_row": "row i draws from (seed, first_row + i)",
    "n": "rows to draw, or completions per row",
    "steps": "steps of the sampler, schedule or solver",
    "sampler": "sampler by name (see: pxserve models MODEL)",
    "method": "method by name (see: pxserve models MODEL)",
    "guidance_scale": "u + s (c - u); 1 is none",
    "guidance_rescale": "share of rescaling after guidance, 0 to 1",
    "eta": "share of DDPM's noise in DDIM steps",
    "clip": "clip the estimate of the clean data to the data's range",
    "dynamic_threshold": "quantile of each row's estimate of the clean data that bounds it",
    "temperature": "divides the logits; 1 is the model's law",
    "top_k": "draw from the k most likely symbols",
    "top_p": "draw from the most likely symbols that reach this probability",
    "min_p": "draw from symbols with at least this share of the most likely one's probability",
    "max_new_tokens": "symbols to append at most",
    "stop": "string that ends a row; may be repeated",
    "truncation": "bound on the latent's entries, in standard deviations",
    "observation_noise": "draw from p(x|z) instead of taking its mean",
    "validate_only": "check the request and predict its cost; compute nothing",
    "importance_samples": "latents drawn per row",
    "probes": "random probes per row",
    "dequantization": "none, uniform or importance",
    "target_standard_error": "draw until each standard error is at most this, in nats",
    "max_network_evaluations": "bound on the network evaluations of each row",
    "per_dimension": "also the log-probability of each dimension",
    "surrogate_sigma": "width of the observation noise, in data units",
    "particles": "particles per completion",
    "sweeps": "sweeps of a chain",
    "jump_length": "steps of one jump back in time",
    "resamplings": "times that each jump is repeated",
    "moments": "also mean and variance of each entry",
    "entropy": "also the entropy of each entry, in nats",
    "score_map": "also the score of each entry",
    "round_trip": "also decode, and say the error",
    "points": "points of each walk, both ends included",
    "path": "geometry of the walk by name",
    "wait": "answer when the model is ready or has failed",
    "checks": "check by name; may be repeated (default: all)",
}

FILES = {
    "data": "rows: .npy, .npz or .png; FILE@START:STOP takes some rows, FILE.npz@KEY one array",
    "start": "rows where the walks start: .npy, .npz or .png, @START:STOP",
    "end": "rows where the walks end: .npy, .npz or .png, @START:STOP",
    "latents": "latents: .npy or .npz, @START:STOP",
}


@dataclass(frozen=True)
class Command:
    """A subcommand: the client's method of this name, or another one."""

    build: Callable[..., Any]
    method: str
    about: str


COMMANDS = {
    "sample": Command(operations.sample, "stream_sample", "draw rows"),
    "likelihood": Command(operations.likelihood, "likelihood", "score rows: ln p, bits per dimension"),
    "inpaint": Command(operations.inpaint, "inpaint", "complete rows of which only some entries are given"),
    "anomaly": Command(operations.score_anomaly, "score_anomaly", "say how strange rows are"),
    "encode": Command(operations.encode, "encode", "turn rows into latents"),
    "decode": Command(operations.decode, "decode", "turn latents into rows"),
    "reconstruct": Command(operations.reconstruct, "reconstruct", "encode and decode rows"),
    "interpolate": Command(operations.interpolate, "interpolate", "walk between rows"),
    "load": Command(administration.load_model, "load_model", "load a model"),
    "unload": Command(administration.unload_model, "unload_model", "unload a model"),
    "selftest": Command(administration.self_test, "self_test", "check a model as it is served"),
}


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(
        prog="pxserve", description="Ask generative models: sample, score, complete."
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("models", help="list models, or describe one")
    listing.add_argument("model", nargs="?", help="describe this one")
    listing.add_argument("--version", type=int, help=HELP["version"])
    connect.add_flags(listing)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.about, description=command.build.__doc__)
        sub.add_argument("model", help="model name")
        _add_parameters(sub, command.build)
        connect.add_flags(sub)
    load = commands.add_parser("bench", help="send an open-loop load and report latencies")
    bench.add_flags(load)
    connect.add_flags(load)
    probe = commands.add_parser("health", help="ask whether the server accepts work; exit code 0 if so")
    health.add_flags(probe)
    connect.add_flags(probe)
    return root


def arguments_of(command: Command, given: argparse.Namespace) -> dict[str, Any]:
    """The plain keyword arguments of the command's method that were given."""
    names = set(signature(command.build).parameters) - {*FILES, "model", "observed", "prompt", "label"}
    values = {name: getattr(given, name, None) for name in names - {"conditions"}}
    return {name: value for name, value in values.items() if value is not None}


def _add_parameters(sub: argparse.ArgumentParser, build: Callable[..., Any]) -> None:
    types = hints(build)
    for name, parameter in signature(build).parameters.items():
        if name in FILES:
            sub.add_argument(f"--{name}", nargs="+", metavar="FILE", help=FILES[name])
        elif name in SPECIAL:
            SPECIAL[name](sub)
        elif name != "model":
            _add_flag(sub, name, types[name], parameter.default)
    if "data" in signature(build).parameters:
        sub.add_argument("--text", action="append", metavar="TEXT", help="a row as text; may be repeated")
    if build.__module__ == operations.__name__:
        sub.add_argument("--out", type=Path, help="write .png (a grid of pictures), .npy or .txt")


def _add_flag(sub: argparse.ArgumentParser, name: str, hint: Any, default: Any) -> None:
    flags = ["-n", "--n"] if name == "n" else [f"--{name.replace('_', '-')}"]
    kinds = [kind for kind in (get_args(hint) or (hint,)) if kind is not type(None)]
    about = HELP[name]
    if hint is bool:
        sub.add_argument(*flags, dest=name, action="store_true", default=None, help=about)
    elif bool in kinds:
        sub.add_argument(*flags, dest=name, action=argparse.BooleanOptionalAction, help=about)
    elif get_origin(hint) is Sequence or len(kinds) > 1:
        sub.add_argument(*flags, dest=name, action="append", metavar="TEXT", help=about)
    else:
        metavar = kinds[0].__name__.upper()
        shown = f"{about} (default: {default})" if default else about
        sub.add_argument(*flags, dest=name, type=kinds[0], metavar=metavar, help=shown)


def _add_observed(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--observed", metavar="FILE", help="mask: .npy, true = given")
    sub.add_argument("--hide", choices=("bottom", "top", "left", "right"), help="hide half of each image")


def _add_conditions(sub: argparse.ArgumentParser) -> None:
    about = "condition; VALUE is a class, null, a text, or @FILE.npy; may be repeated"
    sub.add_argument("--condition", action="append", metavar="NAME=VALUE", help=about)


def _add_label(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--label", nargs="+", type=int, metavar="CLASS", help="class: one, or one per row")


def _add_prompt(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--prompt", metavar="TEXT", help="beginning that is kept: a text, or @FILE.npy")


SPECIAL: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "observed": _add_observed,
    "conditions": _add_conditions,
    "label": _add_label,
    "prompt": _add_prompt,
}
