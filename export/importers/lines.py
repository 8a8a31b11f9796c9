"""Every key of a specification file as a line that could stand there, for templates and refusals."""

from __future__ import annotations

from dataclasses import dataclass

UNDECIDED = "DECIDE"


@dataclass(frozen=True)
class Line:
    """``value``: what a template says; ``example``: what a refusal suggests where that is undecided."""

    value: str
    comment: str
    example: str = ""
    optional: bool = False

    @property
    def suggestion(self) -> str:
        """The value that a refusal shows."""
        return self.example or self.value


def _asked(example: str, comment: str) -> Line:
    return Line(UNDECIDED, comment, example)


def _chosen(value: str, comment: str) -> Line:
    return Line(value, comment, optional=True)


MAIN = {
    "family": Line("", "autoregressive | autoencoder | vae | gan | diffusion"),
    "name": Line("my-model", "lower-case letters, digits, '.', '_' and '-'"),
    "license": _asked("MIT", "shown to callers: an SPDX identifier, or LicenseRef-proprietary"),
    "description": _chosen('""', "shown to callers"),
}
IMAGE = {
    "channels": _asked("3", "1 gray, 3 colour"),
    "height": _asked("32", "pixels"),
    "width": _asked("32", "pixels"),
    "levels": _asked("256", "values of a pixel: 256 for 8-bit images, 2 for binarised ones, 0: real numbers"),
    "data_range": _asked("[-1, 1]", "what the networks see of the darkest and the brightest pixel"),
}
VECTOR = {"size": _asked("64", "numbers of a row")}
TOKENS = {
    "vocabulary": _asked("50257", "ids that may occur in the data"),
    "length": _asked("256", "symbols of a row, at most"),
    "variable": _chosen("false", "true: rows may be shorter"),
    "tokenizer": _chosen("none", "bytes: id b is the byte b, so that callers may send text"),
}
CONDITION = {
    "name": Line("label", "as callers name it"),
    "classes": _asked("10", "class ids 0 .. classes - 1"),
    "null_value": _asked(
        "10", "the id that the network was trained to read as 'no class'; delete if there is none"
    ),
}
LATENT = _asked("[128]", "of a row, without the axis of rows")

FAMILIES: dict[str, dict[str, Line]] = {
    "autoregressive": {
        "order": Line("raster", "raster | columns | interleaved | the places of the data one after another"),
        "vocabulary": _asked("256", "symbols that may come out"),
        "begin": _asked("none", "none (it reads the symbols themselves: masked convolutions, MADE) | "
                        "{kind: symbol, symbol: ID} | {kind: condition, condition: label, offset: ID}"),
        "holds": _chosen("sequence", "sequence [rows, length] | vector (as the data lie) | image [rows, C, "
        "H, W]"),
        "reads": _chosen("ids", "ids | one_hot | levels (numbers in data_range)"),
        "gives": _chosen("logits", "logits | probabilities | log_odds (of symbol 1 of two)"),
        "symbols": _chosen("last", "the axis of symbols: last [.., vocabulary] | first [rows, vocabulary, "
        "..] | "
                           "per_channel"),
        "any_length": _chosen("false", "true: it takes shorter rows too (causal transformers)"),
    },
    "autoencoder": {"latent_shape": LATENT},
    "vae": {
        "posterior": _asked("mean_logvar", "what the encoder gives: mean_logvar | mean_logstd | mean_std | "
                            "mean_variance"),
        "observation": _asked("{kind: bernoulli, outputs: logits}",
                              "what the decoder gives: {kind: bernoulli, outputs: logits | probabilities} | "
                              "{kind: gaussian, std: NUMBER | log_std | std | log_variance | variance} | "
                              "{kind: discretized_logistic, scale: log_scale | scale} | "
                              "{kind: categorical, outputs: logits | probabilities}"),
        "latent_shape": LATENT,
        "packed_posterior": _chosen("false", "true: one tensor, means and then spreads along axis 1"),
        "packed_observation": _chosen("false", "true: one tensor, means and then spreads along axis 1"),
    },
    "gan": {
        "latent_shape": LATENT,
        "scores": Line(UNDECIDED, "only with a discriminator: logits | probabilities (it ends in a sigmoid)",
                       "logits", optional=True),
        "latent_uniform": Line("", "[-1, 1] where it was trained on uniform latents, not normal ones",
                               "[-1, 1]", optional=True),
    },
    "diffusion": {
        "schedule": _asked("{kind: linear_betas, steps: 1000, start: 0.0001, end: 0.02}",
                           "{kind: linear_betas | scaled_linear_betas, steps, start, end} | "
                           "{kind: cosine_betas, steps} | {kind: betas | alphas_cumprod | sigmas, values} | "
                           "{kind: geometric_sigmas, smallest, largest, steps} | {kind: straight_path}"),
        "prediction": _asked("epsilon", "epsilon | sample | v | score | flow (e - x0) | flow_reversed (x0 - "
        "e) | edm"),
        "time": _asked("step", "step (0 .. T - 1) | fraction (0 .. 1, 1 = noise) | reversed_fraction | sigma "
        "| "
                       "log_sigma | quarter_log_sigma"),
        "time_dtype": _chosen("float32", "int64 where an embedding table reads t"),
        "time_shape": _chosen("[]", "of t in a row: [1] for [rows, 1]"),
        "input_scale": _chosen("none", "none | inverse_rms | edm: what the caller multiplies x by"),
        "variance": _chosen("fixed_small", "fixed_small | fixed_large | learned_range (it gives twice the "
        "channels)"),
        "clip": _chosen("false", "true: clamp the estimate of x0 to the data's range at every step"),
        "sigma_data": Line("", "only with edm: the data's standard deviation", "0.5", optional=True),
    },
}  # fmt: skip
"""The keys of each family's own section."""

NETWORKS: dict[str, tuple[str, ...]] = {
    "autoregressive": ("network",),
    "autoencoder": ("encoder", "decoder"),
    "vae": ("encoder", "decoder"),
    "gan": ("generator", "discriminator", "encoder"),
    "diffusion": ("denoiser",),
}
"""The networks of each family; the first ones are needed."""

OPTIONAL_NETWORKS = {"gan": ("discriminator", "encoder")}
SPACES = {"image": IMAGE, "vector": VECTOR, "tokens": TOKENS}

VALUES: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("autoregressive", "network"): (("tokens",), ("logits",)),
    ("autoencoder", "encoder"): (("x",), ("latent",)),
    ("autoencoder", "decoder"): (("latent",), ("x",)),
    ("vae", "encoder"): (("x",), ("mean", "log_variance")),
    ("vae", "decoder"): (("latent",), ("mean", "log_scale")),
    ("gan", "generator"): (("latent",), ("x",)),
    ("gan", "discriminator"): (("x",), ("logit",)),
    ("gan", "encoder"): (("x",), ("latent",)),
    ("diffusion", "denoiser"): (("x", "t"), ("prediction",)),
}
"""What each network takes and gives, by the names of a package."""

OUTPUTS: dict[tuple[str, str], str] = {
    (
        "vae",
        "decoder",
    ): "{logits: NAME} of bernoulli and categorical | {mean: NAME} of gaussian with a number "
    "for std | {mean: NAME, log_scale: NAME} otherwise (packed: the same NAME twice)",
}
"""Networks whose outputs depend on a choice elsewhere in the file."""


_NAMES = {
    "outputs": Line("{mean: NAME}", "the package's name: the graph's"),
    "inputs": Line("{x: NAME}", "the package's name: the graph's"),
    "shape": Line("[64]", "of a row, without the axis of rows"),
}
_TABLES = (MAIN, IMAGE, VECTOR, TOKENS, CONDITION, *FAMILIES.values())


def known_keys() -> set[str]:
    """Every key that has a line."""
    return {key for table in _TABLES for key in table}


def suggestion(key: str) -> str:
    """The line that a refusal shows for a key: "posterior: mean_logvar  # what ...", or ""."""
    found = next((table[key] for table in (*_TABLES, _NAMES) if key in table), None)
    return "" if found is None else f"{key}: {found.suggestion}  # {found.comment}"
