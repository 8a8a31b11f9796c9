"""The classes of a network: how many there are, what they are called, and which one means "none given"."""

from __future__ import annotations

from pydantic import ValidationError

from export.diffusers.refusals import not_stated
from export.diffusers.wish import Wish
from export.model.conditions import ClassCondition
from export.package.errors import PackageError, Reason

NAME = "label"


def class_condition(embeddings: int, null: int | None, wish: Wish, labels: tuple[str, ...]) -> ClassCondition:
    """The condition over ``embeddings`` ids; ``null``: the id that the architecture itself keeps for "none".

    Raises PackageError (BAD_SPECIFICATION): it is not stated whether there is a null, or the names are other
    than the classes in number.
    """
    if null is None and wish.null_label is None and not wish.no_null:
        raise not_stated(
            f"the network has {embeddings} class embeddings, and no file says whether one of them means "
            "'no class given'",
            f"--null-label ID (often {embeddings - 1}, the last), or --no-null-label",
        )
    chosen = null if wish.null_label is None else wish.null_label
    chosen = None if wish.no_null else chosen
    if chosen is not None and not 0 <= chosen < embeddings:
        raise _wrong(f"--null-label {chosen}, but the network has {embeddings} class embeddings")
    classes = embeddings - 1 if chosen == embeddings - 1 else embeddings
    try:
        return ClassCondition(NAME, classes, null_value=chosen, names=labels)
    except ValidationError as error:
        raise _wrong(f"{len(labels)} labels for {classes} classes") from error


def _wrong(problem: str) -> PackageError:
    return PackageError(Reason.BAD_SPECIFICATION, "command line", problem, "Correct it")
