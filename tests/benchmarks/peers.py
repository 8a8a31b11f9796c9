"""Whom people would otherwise serve with: each peer in one file; run alone or all together.

``python -m tests.benchmarks peers`` needs the extra ``bench``; a peer that is not there is said to be absent.
"""

from __future__ import annotations

from tests.benchmarks import peers_genai, peers_openvino, peers_serving
from tests.benchmarks.figures import Figure


def run() -> list[Figure]:
    """The figures of all peers."""
    return [*peers_serving.run(), *peers_openvino.run(), *peers_genai.run()]
