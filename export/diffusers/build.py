"""From a folder to a package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from export.assemble.package import Target, to_stderr, write_model
from export.diffusers.autoencoder import Decoder, Encoder, load_autoencoder, pixels
from export.diffusers.denoisers import Denoiser, describe
from export.diffusers.folder import Source, read_source
from export.diffusers.model import Denoising
from export.diffusers.pipelines import LEVELS, RANGE
from export.diffusers.refusals import not_stated
from export.diffusers.scheduled import Scheduled
from export.diffusers.scheduler import read_scheduler
from export.diffusers.text import TextEncoder, read_text_encoder
from export.diffusers.weights import load
from export.diffusers.wish import Wish
from export.model.spaces import Image
from export.package.errors import PackageError, Reason
from export.transformers.draft import license_of, model_name

Progress = Callable[[str, float], None]
Say = Callable[[str], None]


def build(folder: Path, wish: Wish, progress: Progress, say: Say = to_stderr) -> Path:
    """Write the package and return its folder; raises PackageError with what to do."""
    progress("reading the folder", 0.0)
    source = read_source(folder, wish.scheduler, wish.autoencoder)
    scheduled = read_scheduler(source.scheduler, source.pipeline.scheduler if source.pipeline else None)
    target = Target(wish.to, model_name(folder, wish.name), wish.version, wish.replace, vjp=wish.vjp,
                    tolerance=wish.tolerance, precisions=wish.precisions)  # fmt: skip
    licensed = license_of(folder, wish.license)
    progress("reading the weights", 0.02)
    model = described(source, scheduled, wish, licensed, say)
    return write_model(model, target, progress, say)


def described(source: Source, scheduled: Scheduled, wish: Wish, licensed: str, say: Say) -> Denoising:
    """The model of a folder, its networks loaded."""
    saved = source.denoiser
    text = _text_encoder(source, wish)
    network = load(saved, wish.variant)
    denoiser = describe(saved, network, scheduled, wish, _labels(source, wish), text)
    for note in (*source.notes, *scheduled.notes, *denoiser.notes):
        say(note)
    what: dict[str, Any] = {"license": licensed, "description": wish.description or _described(source)}
    steps = wish.steps or (None if source.pipeline is None else source.pipeline.steps)
    most = scheduled.section["schedule"].get("training_steps") or _steps(scheduled)
    steps = None if steps is None else min(steps, most)
    return Denoising(
        denoiser.module,
        scheduled,
        learned=denoiser.learned,
        steps=steps,
        conditions=denoiser.conditions,
        text_encoder=None if text is None else text.module,
        tokenizer=None if text is None else text.tokenizer,
        **_data(source, denoiser, scheduled, wish),
        **what,
    )


def _text_encoder(source: Source, wish: Wish) -> TextEncoder | None:
    encoder = source.networks.get("text_encoder")
    return None if encoder is None else read_text_encoder(encoder, source.folder / "tokenizer", wish.variant)


def _steps(scheduled: Scheduled) -> int:
    schedule = scheduled.section["schedule"]
    return len(schedule.get("betas") or schedule["sigmas"])


def _data(source: Source, denoiser: Denoiser, scheduled: Scheduled, wish: Wish) -> dict[str, Any]:
    """The pixels, and the autoencoder between them and what is denoised."""
    if source.autoencoder is None:
        return {"data": _pixels(source, denoiser.shape, scheduled, wish)}
    network = load_autoencoder(source.autoencoder, denoiser.shape, wish.variant)
    return {
        "data": _pixels(source, pixels(network, denoiser.shape), scheduled, wish),
        "latent_shape": denoiser.shape,
        "encoder": Encoder(network).eval(),
        "decoder": Decoder(network).eval(),
    }


def _pixels(source: Source, shape: tuple[int, int, int], scheduled: Scheduled, wish: Wish) -> Image:
    """The data space: as the pipeline's code has it, or as the caller says."""
    piped = source.pipeline is not None
    stated: tuple[float, float] = (0.0, 1.0) if scheduled.unit_range else RANGE
    levels = wish.levels if wish.levels is not None else LEVELS if piped else None
    seen = wish.data_range or (stated if piped else None)
    if levels is None:
        raise not_stated(
            "this is a network alone, and no file says how many values a pixel has",
            "--levels 256 (8-bit images), or --levels 0 (real numbers)",
        )
    if seen is None:
        raise not_stated(
            "this is a network alone, and no file says what it sees of the darkest and the brightest pixel",
            "--data-range -1 1 (most models of diffusers), or --data-range 0 1",
        )
    return image(shape, levels, seen)


def image(shape: tuple[int, int, int], levels: int, seen: tuple[float, float]) -> Image:
    """Pixels (BAD_SPECIFICATION where the flags contradict one another)."""
    try:
        return Image(*shape, levels=levels, data_range=seen)
    except ValidationError as error:
        problem = " ".join(error.errors()[0]["msg"].split())
        raise PackageError(
            Reason.BAD_SPECIFICATION, "--levels, --data-range", problem, "Correct them"
        ) from error


def _labels(source: Source, wish: Wish) -> tuple[str, ...]:
    """Names of the classes: those given, or those of a DiT pipeline's ``id2label``."""
    if wish.labels:
        return wish.labels
    named: Any = source.index.get("id2label") or {}
    places = [str(place) for place in range(len(named))]
    return tuple(str(named[place]) for place in places) if set(named) == set(places) else ()


def _described(source: Source) -> str:
    kind = source.index.get("_class_name") or source.denoiser.kind
    return f"{kind} from the diffusers folder {source.folder.resolve().name}"
