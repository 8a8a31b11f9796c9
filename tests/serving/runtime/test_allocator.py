from __future__ import annotations

import os
import subprocess
import sys

import pytest

from serving.runtime.allocator import keep_freed_memory

# 12 blocks of 8 MiB are written and freed, over and over, as the activations of a network are
PROGRAM = """
import resource, sys
import torch
from serving.runtime.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def run():
    blocks = [torch.zeros(2**21) for _ in range(12)]
for _ in range(3):
    run()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    run()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


# what glibc begins with, and held there: by itself it moves them with what was freed so far
FIRST = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | FIRST,
    )
    return int(done.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="this C library has no mallopt")
def test_memory_that_runs_free_is_not_faulted_in_again() -> None:
    assert faults("kept") * 10 < faults("plain")
