"""Client of pxserve: sample, score and complete with trained generative models, NumPy in and out."""

from __future__ import annotations
