"""What graphs already say about a specification: names that match, sizes, dtypes, further inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from export.importers.lines import OUTPUTS, UNDECIDED, VALUES
from export.package.graphs import GraphInfo, GraphTensor

Shape = tuple[int | None, ...]

# What people call the values of a package. A name that is not here is asked for.
SYNONYMS = {
    "x": ("sample", "samples", "input", "inputs", "image", "images", "img", "pixels", "noisy", "x_t",
          "output", "reconstruction", "recon", "x_hat"),
    "t": ("timestep", "timesteps", "time", "times", "sigma", "sigmas", "noise_level"),
    "prediction": ("eps", "epsilon", "noise_pred", "v", "velocity", "score"),
    "latent": ("z", "latents", "noise", "code", "embedding"),
    "tokens": ("ids", "input_ids", "x", "symbols"),
    "mean": ("mu", "loc", "means", "z_mean"),
    "log_variance": ("logvar", "log_var", "z_logvar", "z_log_var"),
    "log_scale": ("logscale", "log_std", "logstd", "scale", "std", "logvar", "log_var"),
    "logit": ("score", "logits", "output", "validity"),
}  # fmt: skip
CHANNELS = (1, 3, 4)  # of an image whose last axis may be that of channels
DATA = {  # values that are shaped like the data
    ("vae", "decoder"): "mean",
    ("autoregressive", "network"): "tokens",
}


@dataclass
class Reading:
    """Keys of a specification that graphs decide, as text; ``source`` says which tensor did."""

    kind: str = ""
    data: dict[str, str] = field(default_factory=dict)
    section: dict[str, str] = field(default_factory=dict)
    layouts: dict[str, str] = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)

    def note(self, where: dict[str, str], key: str, value: object, tensor: GraphTensor) -> None:
        """Enter what ``tensor`` says of ``key``."""
        where[key], self.source[key] = str(value), tensor.name


def matched(names: Sequence[str], tensors: Sequence[GraphTensor]) -> dict[str, str]:
    """The package's names -> the graph's: the same one, a synonym, or the only one there is."""
    known = [tensor.name for tensor in tensors]
    found = {ours: ours for ours in names if ours in known}
    for ours in names:
        free = [name for name in known if name not in found.values()]
        near = next((name for name in free if name.lower() in SYNONYMS.get(ours, ())), None)
        if ours not in found and near is not None:
            found[ours] = near
    if len(names) == len(known) == 1:
        found[names[0]] = known[0]
    return found


def read_from(family: str, graphs: Mapping[str, GraphInfo], kind: str = "") -> Reading:
    """What the graphs of each network say; ``kind`` of the data, where the user stated it."""
    found = Reading(kind)
    values = {name: dict(_values((family, name), info)) for name, info in graphs.items()}
    _read_data(found, family, values)
    for tensors in values.values():
        _read_section(found, family, tensors)
    for name, info in graphs.items():
        found.conditions = found.conditions or dict(_conditions(family, name, info))
    return found


def _values(key: tuple[str, str], info: GraphInfo) -> Iterator[tuple[str, GraphTensor]]:
    """The package's names and the tensors that they mean."""
    for ours, tensors in zip(VALUES[key], (info.inputs, info.outputs), strict=True):
        by_name = {tensor.name: tensor for tensor in tensors}
        found = matched(ours, tensors)
        if ours == VALUES[key][1] and key in OUTPUTS and not found and tensors:
            found = {ours[0]: tensors[0].name}  # whatever it means, it is shaped like the data
        yield from ((name, by_name[theirs]) for name, theirs in found.items())


def _read_data(found: Reading, family: str, values: Mapping[str, Mapping[str, GraphTensor]]) -> None:
    for name, tensors in values.items():
        tensor = tensors.get(DATA.get((family, name), "x"))
        if tensor is None or tensor.shape is None:
            continue
        if len(tensor.shape) == 4 and not found.kind:
            found.kind = "image"
        found.layouts[name] = layout_of(tensor.shape)
        if found.kind == "image" and family != "autoregressive":
            _read_sizes(found, tensor, found.layouts[name])
        elif found.kind == "image" and len(tensor.shape) == 4:
            _read_sizes(found, tensor, "channels_first")
    if family != "autoregressive" and found.kind == "vector":
        _read_width(found, values)


def layout_of(shape: Shape) -> str:
    """How a network that takes or gives ``shape`` holds images."""
    if len(shape) == 2:
        return "flat"
    last = len(shape) == 4 and shape[-1] in CHANNELS and shape[1] not in CHANNELS
    return "channels_last" if last else "channels_first"


def _read_sizes(found: Reading, tensor: GraphTensor, layout: str) -> None:
    shape = (tensor.shape or ())[1:]
    if len(shape) != 3 or not all(shape):
        return
    keys = ("height", "width", "channels") if layout == "channels_last" else ("channels", "height", "width")
    for key, size in zip(keys, shape, strict=True):
        found.note(found.data, key, size, tensor)


def _read_width(found: Reading, values: Mapping[str, Mapping[str, GraphTensor]]) -> None:
    for tensors in values.values():
        tensor = tensors.get("x")
        if tensor is not None and tensor.shape is not None and len(tensor.shape) == 2 and tensor.shape[1]:
            found.note(found.data, "size", tensor.shape[1], tensor)


def _read_section(found: Reading, family: str, tensors: Mapping[str, GraphTensor]) -> None:
    latent, t = tensors.get("latent"), tensors.get("t")
    if latent is not None and latent.shape is not None and all(latent.shape[1:]):
        found.note(found.section, "latent_shape", list(latent.shape[1:]), latent)
    if t is not None and t.dtype in ("int64", "int32"):
        found.note(found.section, "time_dtype", "int64", t)
    if t is not None and t.shape is not None and len(t.shape) > 1 and all(t.shape[1:]):
        found.note(found.section, "time_shape", list(t.shape[1:]), t)
    if family == "autoregressive":
        _read_symbols(found, tensors)


def _read_symbols(found: Reading, tensors: Mapping[str, GraphTensor]) -> None:
    tokens, logits = tensors.get("tokens"), tensors.get("logits")
    if tokens is not None and tokens.shape is not None:
        if tokens.dtype == "float32":
            found.note(found.section, "reads", "levels" if len(tokens.shape) != 3 else "one_hot", tokens)
        if len(tokens.shape) == 4:
            found.note(found.section, "holds", "image", tokens)
        elif len(tokens.shape) == 2 and tokens.shape[1]:
            found.note(found.data, "length", tokens.shape[1], tokens)
    if logits is None or logits.shape is None or len(logits.shape) not in (3, 4):
        return
    place = -1 if len(logits.shape) == 3 else 1
    if logits.shape[place]:
        found.note(found.section, "vocabulary", logits.shape[place], logits)
        found.note(found.section, "symbols", "last" if place == -1 else "first", logits)


def _conditions(family: str, name: str, info: GraphInfo) -> Iterator[tuple[str, str]]:
    """Names and entries of inputs beyond the family's own, where those are known."""
    ours = VALUES[family, name][0]
    found = matched(ours, info.inputs)
    if len(found) < len(ours):
        return
    for tensor in info.inputs:
        if tensor.name in found.values():
            continue
        if tensor.dtype in ("int64", "int32", ""):  # TorchScript declares no dtypes
            rest = f"classes: {UNDECIDED}, null_value: {UNDECIDED}"
            yield tensor.name, f"{{kind: class, name: {tensor.name}, {rest}}}"
        else:
            sizes = (tensor.shape or (None, None))[1:]
            shape = list(sizes) if all(sizes) else UNDECIDED
            yield tensor.name, f"{{kind: vector, name: {tensor.name}, shape: {shape}}}"
