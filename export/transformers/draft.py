"""What ``model.yaml`` says of a model that came from a folder."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import yaml

from export.graph.decoder import Decoder
from export.package.digest import sha256_file
from export.transformers.folder import Source
from export.transformers.refusal import bad_source
from export.transformers.symbols import Symbols

PREPROCESSOR = "preprocessor_config.json"


def license_of(folder: Path, given: str | None) -> str:
    """The licence that was given, or that the folder's README.md states; refuses to guess one."""
    readme = folder / "README.md"
    head = re.match(r"^---\n(.*?)\n---", readme.read_text("utf-8"), re.S) if readme.is_file() else None
    try:
        stated = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError:
        stated = None
    found = given or (stated.get("license") if isinstance(stated, dict) else None)
    if not isinstance(found, str) or not found:
        raise bad_source(folder, "no licence is stated (README.md: license)", "Give --license NAME")
    return found


def model_name(folder: Path, given: str | None) -> str:
    """The name that was given, or the folder's own in the form that packages need."""
    own = re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower())
    return given or own.strip("-._")[:64] or "model"


def data_space(source: Source, decoder: Decoder) -> dict[str, Any]:
    """Rows of token ids, or pictures whose pixels are entries of a palette."""
    if source.entry.pixels:
        return _pictures(source, decoder)
    return {
        "kind": "tokens",
        "axes": ["position"],
        "shape": [-1],
        "dtype": "int32",
        "levels": decoder.vocabulary,
        "max_length": decoder.max_length,
    }


def _pictures(source: Source, decoder: Decoder) -> dict[str, Any]:
    side = math.isqrt(decoder.max_length)
    if side * side != decoder.max_length:
        raise bad_source(
            source.folder, f"{decoder.max_length} pixels are no square", "Leave --max-length out"
        )
    return {
        "kind": "image",
        "axes": ["height", "width"],
        "shape": [side, side],
        "dtype": "int32",
        "levels": decoder.vocabulary,
        "transform": {"kind": "palette", "colors": _colors(source.folder, decoder.vocabulary)},
    }


def _colors(folder: Path, count: int) -> list[list[float]]:
    """The image processor's clusters, from [-1, 1] to 0 .. 255."""
    path = folder / PREPROCESSOR
    try:
        clusters = json.loads(path.read_text("utf-8"))["clusters"]
        colors = [[min(max((float(v) + 1.0) * 127.5, 0.0), 255.0) for v in color] for color in clusters]
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"the palette (clusters) is needed and cannot be read ({error})"
        raise bad_source(path, problem, "Save the image processor beside the model") from error
    if len(colors) != count or any(len(color) != 3 for color in colors):
        raise bad_source(path, f"{len(colors)} clusters for {count} symbols of three values", "Save it again")
    return colors


def section(source: Source, decoder: Decoder, symbols: Symbols, *, text: bool) -> dict[str, Any]:
    """The section ``autoregressive``."""
    ends: dict[str, Any] = {}
    if symbols.ends and not source.entry.pixels:
        ends = {"end_symbol": symbols.ends[0], "other_end_symbols": list(symbols.ends[1:])}
    return {
        "vocabulary": decoder.vocabulary,
        "begin_symbol": symbols.begin,
        **ends,
        "tokenizer": "huggingface" if text else "none",
        "cache": {
            "layers": len(decoder.blocks),
            "kv_heads": decoder.kv_heads,
            "head_dim": decoder.head_dim,
            "max_length": decoder.max_length,
        },
    }


def provenance(source: Source, symbols: Symbols) -> dict[str, str]:
    """Where it came from."""
    return {
        "source": f"transformers folder {source.folder.resolve().name}",
        "architecture": source.architecture,
        "begin_symbol": symbols.reason,
        "config_sha256": sha256_file(source.folder / "config.json"),
    }
