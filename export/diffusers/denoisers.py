"""Denoisers of diffusers behind one signature: (x, t, conditions in order) -> prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from export.diffusers.any_rows import any_rows
from export.diffusers.classes import class_condition
from export.diffusers.folder import Saved
from export.diffusers.refusals import WHERE, not_stated, not_supported, unsupported
from export.diffusers.scheduled import Scheduled
from export.diffusers.text import NAME as TEXT
from export.diffusers.text import TextEncoder
from export.diffusers.wish import Wish
from export.model.conditions import ConditionSpec, TextCondition, VectorCondition

DOWN = ("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D", "SkipDownBlock2D", "AttnSkipDownBlock2D")
UP = ("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D", "SkipUpBlock2D", "AttnSkipUpBlock2D")
MIDDLE = ("UNetMidBlock2D", None)


@dataclass(frozen=True)
class Denoiser:
    """``module``: forward(x, t, *conditions); ``shape``: of x; ``learned``: half of the answer
    is a variance. ``notes``: what differs from the source, in sentences.
    """

    module: nn.Module
    shape: tuple[int, int, int]
    conditions: tuple[ConditionSpec, ...] = ()
    learned: bool = False
    notes: tuple[str, ...] = ()


class Called(nn.Module):
    """``network`` called with keywords: x and t, then the conditions under ``names``.

    ``concatenated``: the name of a condition whose channels follow those of x. ``kept``: channels of the
    answer, the rest is left out.
    """

    def __init__(
        self, network: nn.Module, names: tuple[str, ...], concatenated: str | None, kept: int | None
    ) -> None:
        super().__init__()
        self.network = network
        self._names, self._concatenated, self._kept = names, concatenated, kept

    def forward(self, x: Tensor, t: Tensor, *given: Tensor) -> Tensor:
        """[rows, C, H, W], [rows], conditions [rows, ...] -> [rows, channels, H, W]."""
        keywords = dict(zip(self._names, given, strict=True))
        if self._concatenated is not None:
            x = torch.cat([x, keywords.pop(self._concatenated)], dim=1)
        with any_rows():
            answer: Tensor = self.network(x, t, return_dict=False, **keywords)[0]
        return answer if self._kept is None else answer[:, : self._kept]


def describe(
    saved: Saved,
    network: Any,
    scheduled: Scheduled,
    wish: Wish,
    labels: tuple[str, ...] = (),
    text: TextEncoder | None = None,
) -> Denoiser:
    """How a network is asked; ``labels``: names of its classes, where the folder has them; ``text``: what
    it hears of texts through.

    Raises PackageError: UNSUPPORTED_NETWORK, BAD_SPECIFICATION (something is not stated).
    """
    name = type(network).__name__
    if name not in DENOISERS:
        raise not_supported(
            saved.config, f"{name} is no denoiser that is known here", f"Supported: {', '.join(DENOISERS)}"
        )
    config = {**network.config, WHERE: saved.config[WHERE], "_class_name": name}
    conditions, keywords = DENOISERS[name](config, wish, labels)
    if name == "UNet2DConditionModel":
        read, hidden = _hidden_states(config, wish, text), "encoder_hidden_states"
        conditions, keywords = (*conditions, read), (*keywords, hidden)
    channels, learned, kept = _channels(config, scheduled)
    height, width = _size(config, wish)
    more = config["in_channels"] - channels
    image = _image(config, more, (height, width), wish)
    if image is not None:
        conditions, keywords = (*conditions, image), (*keywords, image.name)
    module = Called(network, keywords, None if image is None else image.name, kept).eval()
    notes = (
        () if kept is None else ("the variance that the network learned is left out, as its pipeline does",)
    )
    return Denoiser(module, (channels, height, width), conditions, learned, notes)


def _channels(config: dict[str, Any], scheduled: Scheduled) -> tuple[int, bool, int | None]:
    """Channels of the data, whether a variance is learned, and how many channels of the answer are kept."""
    taken, given = int(config["in_channels"]), int(config.get("out_channels") or config["in_channels"])
    learned = scheduled.section.get("variance") == "learned_range"
    if learned and (given % 2 or given // 2 > taken):
        raise not_supported(
            config,
            f"the scheduler says that the variance is learned, but the network gives {given} channels "
            f"for {taken}",
            "Give the scheduler that it was trained with",
        )
    if learned:
        return given // 2, True, None
    return (given // 2, False, given // 2) if given == 2 * taken else (given, False, None)


def _size(config: dict[str, Any], wish: Wish) -> tuple[int, int]:
    stated = wish.size or config.get("sample_size")
    if stated is None:
        raise not_stated(f"the size of the images is not stated in {config[WHERE]}", "--size HEIGHT WIDTH")
    height, width = (stated, stated) if isinstance(stated, int) else stated
    return int(height), int(width)


def _image(
    config: dict[str, Any], channels: int, size: tuple[int, int], wish: Wish
) -> VectorCondition | None:
    """Channels that the network reads beside the noisy ones."""
    if channels == 0 and wish.image_condition is None:
        return None
    if channels < 1:
        raise not_supported(
            config, "the network reads no channels beside the noisy ones", "Leave out --image"
        )
    if wish.image_condition is None:
        raise not_stated(
            f"the network reads {channels} channels beside the noisy ones, and no file says what they are",
            "--image-condition NAME (callers give it as float32, as the network reads it)",
        )
    return VectorCondition(wish.image_condition, (channels, *size))


Conditioned = tuple[tuple[ConditionSpec, ...], tuple[str, ...]]


def _unet(config: dict[str, Any], wish: Wish, labels: tuple[str, ...]) -> Conditioned:
    """UNet2DModel: perhaps with classes."""
    _blocks(config, "down_block_types", DOWN)
    _blocks(config, "up_block_types", UP)
    if config.get("mid_block_type", MIDDLE[0]) not in MIDDLE:
        raise unsupported(config, "mid_block_type", config["mid_block_type"], MIDDLE)
    if config.get("class_embed_type") is not None:
        raise unsupported(config, "class_embed_type", config["class_embed_type"], [None])
    if not config.get("num_class_embeds"):
        return (), ()
    condition = class_condition(int(config["num_class_embeds"]), None, wish, labels)
    return (condition,), ("class_labels",)


def _dit(config: dict[str, Any], wish: Wish, labels: tuple[str, ...]) -> Conditioned:
    """DiTTransformer2DModel: its table of classes has one more entry, the null class."""
    classes = int(config["num_embeds_ada_norm"])
    return (class_condition(classes + 1, classes, wish, labels),), ("class_labels",)


def _unet_condition(config: dict[str, Any], wish: Wish, labels: tuple[str, ...]) -> Conditioned:
    """UNet2DConditionModel: perhaps with classes, always with hidden states."""
    _blocks(config, "down_block_types", (*DOWN, "CrossAttnDownBlock2D"))
    _blocks(config, "up_block_types", (*UP, "CrossAttnUpBlock2D"))
    middle = ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None)
    if config.get("mid_block_type") not in middle:
        raise unsupported(config, "mid_block_type", config["mid_block_type"], middle)
    for key in ("class_embed_type", "addition_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim"):
        if config.get(key) is not None:
            raise unsupported(config, key, config[key], [None])
    if not config.get("num_class_embeds"):
        return (), ()
    condition = class_condition(int(config["num_class_embeds"]), None, wish, labels)
    return (condition,), ("class_labels",)


def _hidden_states(config: dict[str, Any], wish: Wish, text: TextEncoder | None) -> ConditionSpec:
    """What the network attends to: the states of a text encoder, or tensors of the callers'."""
    widths = config["cross_attention_dim"]
    width = widths if isinstance(widths, int) else widths[0]
    if text is not None and text.width != width:
        raise not_supported(
            config,
            f"it attends to states of width {width}, and the text encoder gives {text.width}",
            "Give the text encoder that it was trained with",
        )
    if text is not None:
        return TextCondition(TEXT, (text.length, width), text.null)
    if wish.sequence_length is None:
        raise not_stated(
            f"the network attends to hidden states of width {width}, and no file says how many there are",
            "--sequence-length N (77 for CLIP)",
        )
    return VectorCondition("encoder_hidden_states", (wish.sequence_length, width))


def _blocks(config: dict[str, Any], key: str, known: tuple[str, ...]) -> None:
    for block in config[key]:
        if block not in known:
            raise unsupported(config, f"{key}:", block, known)


DENOISERS: dict[str, Callable[[dict[str, Any], Wish, tuple[str, ...]], Conditioned]] = {
    "UNet2DModel": _unet,
    "UNet2DConditionModel": _unet_condition,
    "DiTTransformer2DModel": _dit,
}
