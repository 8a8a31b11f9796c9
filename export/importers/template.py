"""A specification file to fill in: every key of a family, with what the graphs already say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from export.importers.lines import (
    CONDITION,
    FAMILIES,
    MAIN,
    NETWORKS,
    OPTIONAL_NETWORKS,
    OUTPUTS,
    SPACES,
    UNDECIDED,
    VALUES,
    Line,
)
from export.importers.reading import Reading, matched, read_from
from export.package.graphs import GraphInfo, GraphTensor

HEAD = f"""\
# What the model is, for pxserve-export. Replace every {UNDECIDED}; a line that starts with '#' may be
# deleted, or uncommented where it applies. docs/export.md explains every key.
"""
COLUMN = 34


def template(family: str, files: Mapping[str, Path], graphs: Mapping[str, GraphInfo], kind: str = "") -> str:
    """The text for ``family``, filled in by ``files`` and what ``graphs`` declare, each by network."""
    found = read_from(family, graphs, kind)
    kind = found.kind or ("tokens" if family == "autoregressive" else "image")
    lines = [HEAD, *_pairs(MAIN | {"family": Line(family, MAIN["family"].comment)}, "")]
    lines += ["data:", _line("  kind", Line(kind, " | ".join(SPACES) + "  (--data)"))]
    lines += _pairs(_decided(SPACES[kind], found.data, found), "  ")
    lines += _conditions(found.conditions)
    lines.append("networks:")
    for name in NETWORKS[family]:
        layout = found.layouts.get(name, "channels_first") if kind == "image" else ""
        shown = _network((family, name), files.get(name), graphs.get(name), layout, tuple(found.conditions))
        optional = name in OPTIONAL_NETWORKS.get(family, ()) and name not in files
        lines += [f"# {line}" if optional else line for line in shown]
    lines += [f"{family}:", *_pairs(_decided(FAMILIES[family], found.section, found), "  ")]
    return "\n".join(lines) + "\n"


def _decided(table: Mapping[str, Line], values: Mapping[str, str], found: Reading) -> dict[str, Line]:
    """The table with what a graph decides, and which tensor did."""
    return {
        key: Line(values[key], f"as {found.source[key]} has it; {line.comment}") if key in values else line
        for key, line in table.items()
    }


def _pairs(table: Mapping[str, Line], indent: str) -> Iterator[str]:
    for key, line in table.items():
        hidden = line.optional and line.value in ("", UNDECIDED)
        shown = Line(line.suggestion, line.comment) if hidden else line
        yield _line(("# " if hidden else "") + indent + key, shown)


def _line(key: str, line: Line) -> str:
    return f"{key}: {line.value}".ljust(COLUMN) + f"  # {line.comment}"


def _conditions(given: Mapping[str, str]) -> list[str]:
    said = (
        "# what the networks take beside the data, in their order; or {kind: vector, name: NAME, shape: [N]}"
    )
    if given:
        return [f"conditions:  {said}", *(f"  - {line}" for line in given.values())]
    sample = ", ".join(f"{key}: {line.suggestion}" for key, line in CONDITION.items())
    return [f"# conditions:  {said}", f"#   - {{kind: class, {sample}}}"]


def _network(
    key: tuple[str, str],
    file: Path | None,
    info: GraphInfo | None,
    layout: str,
    also: tuple[str, ...] = (),
) -> Iterator[str]:
    inputs, outputs = VALUES[key]
    inputs += also
    yield f"  {key[1]}:"
    yield _line("    file", Line(str(file or f"{key[1]}.onnx"), "from this file's folder"))
    given, made = (info.inputs, info.outputs) if info else ((), ())
    yield _line("    inputs", Line(_names(inputs, given), _has(given)))
    if key in OUTPUTS:  # which there are is the user's to say
        has = f"{OUTPUTS[key]}; {_has(made)}" if made else OUTPUTS[key]
        yield _line("    outputs", Line(UNDECIDED, has))
    else:
        yield _line("    outputs", Line(_names(outputs, made), _has(made)))
    if layout:
        choice = "channels_first | channels_last [rows, H, W, C] | flat [rows, C * H * W]"
        yield _line("    layout", Line(layout, choice))


def _names(names: tuple[str, ...], tensors: tuple[GraphTensor, ...]) -> str:
    """ "{x: sample, t: DECIDE}"; without a graph the package's own names."""
    found = matched(names, tensors) if tensors else {name: name for name in names}
    return "{" + ", ".join(f"{ours}: {found.get(ours, UNDECIDED)}" for ours in names) + "}"


def _has(tensors: tuple[GraphTensor, ...]) -> str:
    if not tensors:
        return "package name: the graph's name"
    if tensors[0].name.isdecimal():
        return f"places of what it returns: {', '.join(tensor.name for tensor in tensors)}"
    return "the graph has " + "; ".join(map(_shown, tensors))


def _shown(tensor: GraphTensor) -> str:
    if tensor.shape is None:
        return f"{tensor.name} {tensor.dtype}".strip()
    sizes = ", ".join("?" if size is None else str(size) for size in tensor.shape)
    return f"{tensor.name} {tensor.dtype} [{sizes}]"
