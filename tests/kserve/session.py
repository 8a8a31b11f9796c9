"""A session of the stock tritonclient, in an environment of its own: ``python session.py HOST:PORT``."""

from __future__ import annotations

import json
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

DIFFUSION, VAE, TEXT = "digits-diffusion", "digits-vae", "text-autoregressive"
MANY = 200


def given(name: str, value: np.ndarray, datatype: str) -> triton.InferInput:
    """An input."""
    one = triton.InferInput(name, list(value.shape), datatype)
    one.set_data_from_numpy(value)
    return one


def describe(client: triton.InferenceServerClient) -> dict[str, Any]:
    """Probes and metadata."""
    metadata = client.get_model_metadata(DIFFUSION, as_json=True)
    config = client.get_model_config(DIFFUSION, as_json=True)["config"]
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": [client.is_model_ready(name) for name in (DIFFUSION, "nobody")],
        "server": client.get_server_metadata(as_json=True)["name"],
        "outputs": [[one["name"], one["datatype"], one["shape"]] for one in metadata["outputs"]],
        "optional": all(one["optional"] for one in config["input"]),
        "index": sorted({one.name for one in client.get_model_repository_index().models}),
    }


def answers(client: triton.InferenceServerClient) -> dict[str, Any]:
    """Sampling, scoring, completing, text."""
    asked = {"n": 4, "seed": 7, "label": 3, "steps": 20, "guidance_scale": 2.0, "sampler": "ddim"}
    sampled = client.infer(DIFFUSION, [], parameters={"operation": "sample", **asked}, request_id="mine")
    rows = sampled.as_numpy("data")
    data = given("data", rows, "UINT8")
    scored = client.infer(VAE, [data], parameters={"operation": "likelihood", "seed": 1})
    observed = np.zeros((8, 8), bool)
    observed[:4] = True
    completed = client.infer(
        VAE,
        [data, given("observed", observed, "BOOL")],
        parameters={"operation": "inpaint", "n": 2, "seed": 1},
        outputs=[triton.InferRequestedOutput("data")],
    )
    text = client.infer(TEXT, [], parameters={"prompt": "The import", "max_new_tokens": 20, "seed": 1})
    line = given("data", np.array([b"Hello there"], np.object_), "BYTES")
    return {
        "sample": rows.tolist(),
        "id": sampled.get_response().id,
        "kind": sampled.get_response().parameters["kind"].string_param,
        "log_prob": scored.as_numpy("log_prob").tolist(),
        "completions": completed.as_numpy("data").tolist(),
        "completion_outputs": [one.name for one in completed.get_response().outputs],
        "text": [one.decode() for one in text.as_numpy("text")],
        "text_log_prob": client.infer(TEXT, [line], parameters={"operation": "likelihood"})
        .as_numpy("log_prob")
        .tolist(),
    }


def refusals(client: triton.InferenceServerClient) -> list[list[str]]:
    """Status and message of what is wrong."""
    found = []
    asked: list[tuple[str, dict[str, Any]]] = [
        ("nobody", {}),
        (DIFFUSION, {"parameters": {"speed": 3}}),
        (DIFFUSION, {"priority": 1}),
        (DIFFUSION, {"parameters": {"operation": "dream"}}),
        (TEXT, {"parameters": {"operation": "encode"}}),
        (DIFFUSION, {"client_timeout": 0.001, "parameters": {"n": 64, "steps": 100}}),
    ]
    for model, arguments in asked:
        try:
            client.infer(model, [], **arguments)
            found.append(["OK", ""])
        except InferenceServerException as error:
            found.append([str(error.status()), str(error.message())])
    return found


def load(client: triton.InferenceServerClient) -> dict[str, int]:
    """Many requests at once, as load testers send them: unary, then over one stream."""
    done: queue.Queue[Any] = queue.Queue()

    def finished(result: Any, error: Any) -> None:
        done.put(error)

    for seed in range(MANY):
        client.async_infer(DIFFUSION, [], callback=finished, parameters={"steps": 5, "seed": seed})
    unary = sum(done.get(timeout=60) is None for _ in range(MANY))
    client.start_stream(finished)
    for seed in range(MANY):
        client.async_stream_infer(DIFFUSION, [], request_id=str(seed), parameters={"steps": 5, "seed": seed})
    streamed = sum(done.get(timeout=60) is None for _ in range(MANY))
    client.stop_stream()
    return {"unary": unary, "streamed": streamed}


def repository(client: triton.InferenceServerClient) -> list[bool]:
    """Unload, load."""
    client.unload_model("digits-gan")
    before = client.is_model_ready("digits-gan")
    client.load_model("digits-gan")
    return [before, client.is_model_ready("digits-gan")]


if __name__ == "__main__":
    with triton.InferenceServerClient(sys.argv[1]) as connected:
        parts = (describe, answers, refusals, load, repository)
        json.dump({part.__name__: part(connected) for part in parts}, sys.stdout)
