"""LitServe around the pipeline: ``python -m tests.benchmarks.peers_litserve PORT``.

Annotations are evaluated here: LitServe reads the kind of a body from them.
"""

import sys
from importlib import import_module
from typing import Any

import numpy as np

from tests.benchmarks.peers_pipeline import BATCH, WAIT_S, Levels, Pipeline

ls: Any = import_module("litserve")
Given = tuple[np.ndarray, int]


class Digits(ls.LitAPI):  # type: ignore[misc]
    """Requests are gathered by LitServe."""

    def setup(self, device: str) -> None:
        """Once in a worker."""
        self.pipeline = Pipeline()

    def decode_request(self, request: dict[str, Any]) -> Given:
        """Noise as numbers, and a class."""
        return np.asarray(request["noise"], np.float32).reshape(1, 8, 8), int(request["label"])

    def batch(self, inputs: list[Given]) -> tuple[np.ndarray, np.ndarray]:
        """One array of each."""
        return np.stack([noise for noise, _ in inputs]), np.array([label for _, label in inputs], np.int64)

    def predict(self, given: tuple[np.ndarray, np.ndarray]) -> Levels:
        """All rows at once."""
        return self.pipeline(*given)

    def unbatch(self, output: Levels) -> list[Levels]:
        """One answer each."""
        return list(output)

    def encode_response(self, output: Levels) -> dict[str, Any]:
        """Levels as numbers."""
        return {"levels": output.reshape(-1).tolist()}


if __name__ == "__main__":
    server = ls.LitServer(Digits(max_batch_size=BATCH, batch_timeout=WAIT_S), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error")
