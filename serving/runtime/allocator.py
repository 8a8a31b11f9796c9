"""glibc's malloc, told to keep what networks free: they will ask for it again in a tick's time."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt, malloc.h
KEEP_BYTES = 512 * 2**20  # free at the end of the heap before any goes back to the system
GROW_BYTES = 64 * 2**20  # more than asked for, when the heap grows
OWN_MAPPING_BYTES = 32 * 2**20  # what is larger is mapped by itself, and unmapped when freed; glibc's most


def keep_freed_memory() -> bool:
    """Whether it could be told (other libraries have no mallopt).

    By itself malloc returns a network's activations to the system after each run, and the next one faults
    them in again, page by page: 3 % of a convolutional network's time in torch, half of an attention's.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    asked = (
        (_MMAP_THRESHOLD, OWN_MAPPING_BYTES),
        (_TRIM_THRESHOLD, KEEP_BYTES),
        (_TOP_PAD, GROW_BYTES),
    )
    told = [mallopt(option, size) == 1 for option, size in asked]
    return all(told)


def return_freed_memory() -> bool:
    """Give back what is free now, once: what a model took to load and warm, another will not take again."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return False
    return bool(trim(0))
