"""Does a network see only what came before? Symbols are changed, and earlier outputs compared."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from export.package.errors import PackageError, Reason
from export.package.verify import Arrays, Run

PLACES = 16  # of a row that are changed, at most
TOLERANCE = 1e-4  # of a logit, relative to the largest: rows may differ in the last bits


def check_causal(run: Run, inputs: Arrays, vocabulary: int, *, shifted: bool) -> None:
    """Raises PackageError (WRONG_OUTPUT) where an output changes with its own symbol or a later one."""
    tokens = np.asarray(inputs["tokens"][:1], np.int64)
    length = tokens.shape[1]
    places = np.unique(np.linspace(0, length - 1, min(PLACES, length)).astype(np.int64))
    changed = np.repeat(tokens, len(places), axis=0)
    changed[np.arange(len(places)), places] = (changed[np.arange(len(places)), places] + 1) % vocabulary
    others = {name: np.repeat(value[:1], len(places), axis=0) for name, value in inputs.items() if value.ndim}
    before = np.asarray(
        run({**others, "tokens": np.repeat(tokens, len(places), axis=0)})["logits"], np.float64
    )
    after = np.asarray(run({**others, "tokens": changed})["logits"], np.float64)
    moved = np.abs(after - before).max(axis=-1) > TOLERANCE * max(1.0, float(np.abs(before).max()))
    # [places, outputs]; with a begin symbol in front, output i may see input i
    for row, place in enumerate(places.tolist()):
        seen = np.flatnonzero(moved[row, : place + (0 if shifted else 1)])
        if seen.size:
            raise _refused(int(seen[0]), place, shifted, moved)


def _refused(output: int, place: int, shifted: bool, moved: npt.NDArray[np.bool_]) -> PackageError:
    problem = f"output {output} changes with symbol {place - int(shifted)}"
    if shifted:
        fix = (
            "The network sees what it should predict: mask its attention (is_causal), or, if it reads the "
            "symbols themselves without a begin symbol in front, say begin='none'"
        )
    elif bool(np.diagonal(moved[:, : moved.shape[0]]).all()) or output == place:
        fix = (
            "It sees the symbol that it should predict: its first layer needs a mask that leaves out the "
            "centre (type A), or it reads a begin symbol first: say begin=BeginSymbol(ID); or order is "
            "another"
        )
    else:
        fix = "Its order is another: say order='columns', 'interleaved', or the places one after another"
    return PackageError(Reason.WRONG_OUTPUT, "scorer", problem, fix)
