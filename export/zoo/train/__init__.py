"""Training of the reference models, from scratch, on two cores."""

from export.zoo.train.recipes import train

__all__ = ["train"]
