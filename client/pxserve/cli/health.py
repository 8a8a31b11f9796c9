"""``pxserve health``: a probe for supervisors; exit code 0 says SERVING."""

from __future__ import annotations

import argparse
import json
import sys

from pxserve.channel import Endpoint
from pxserve.cli.connect import connection
from pxserve.health import TIMEOUT_S, ServingStatus, check


def add_flags(health: argparse.ArgumentParser) -> None:
    """Which service, and how long to wait."""
    about = "liveness, model/NAME, or a service (default: whether the process accepts work)"
    health.add_argument("service", nargs="?", default="", help=about)
    health.add_argument("--timeout-s", type=float, default=TIMEOUT_S, help="seconds (default: %(default)s)")


def run(given: argparse.Namespace) -> int:
    """Ask and print; 0 for SERVING, 1 for every other status."""
    # without the token: health is for everyone
    endpoint = Endpoint(given.target, connection(given)["tls"], timeout_s=given.timeout_s)
    status = check(endpoint, given.service)
    document = json.dumps({"service": given.service, "status": status.name})
    sys.stdout.write((document if given.json else status.name) + "\n")
    return 0 if status is ServingStatus.SERVING else 1
