"""One thread of torch for each test process."""

from __future__ import annotations

import os

import torch

# Two workers whose torch threads wait for each other on two cores turned a test of one second into one of
# two minutes: a barrier spins until the scheduler comes round. Servers that tests start set their own.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
