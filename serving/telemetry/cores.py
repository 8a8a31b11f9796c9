"""How many cores this process may use: what its affinity allows, within its container's quota."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def cpu_cores(cgroups: Path = CGROUPS) -> float:
    """Cores, a fraction where the quota is one; quotas of control groups of version 2 and 1."""
    return min(float(len(os.sched_getaffinity(0))), _quota(cgroups))


def _quota(cgroups: Path) -> float:
    try:
        quota, period = (cgroups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroups / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroups / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return float("inf")
    return float("inf") if quota in ("max", "-1") else int(quota) / int(period)
