"""An open-loop load generator: requests arrive when the clock says so, not when the server is ready."""

from pxserve.bench.load import Answer, Workload, run
from pxserve.bench.report import Report, summarise

__all__ = ["Answer", "Report", "Workload", "run", "summarise"]
