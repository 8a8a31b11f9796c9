"""A folder that transformers saved, exported as README says, served, and asked over gRPC."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch

from deploy.demo.server import serving
from export.cli import main
from export.package.tokenizer import Tokenizer
from pxserve import Client, PxserveError, TextDelta
from pxserve.v1 import data_pb2, generative_service_pb2_grpc, likelihood_pb2, sample_pb2
from tests.export.transformers.folders import byte_level, folder, network

pytestmark = pytest.mark.timeout(300)  # a process that imports transformers, and a server

ROOT = Path(__file__).parents[2]
SETTINGS = {"vocab_size": 320, "bos_token_id": 1, "eos_token_id": 2}
PROMPT = "The import statement"


def commands() -> list[str]:
    """The commands of README's section."""
    section = (ROOT / "README.md").read_text().split("### From a transformers folder")[1].split("\n#")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.S)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def run(command: str, at: Path, target: str = "") -> str:
    name, *rest = shlex.split(command)
    words = [str(Path(sys.executable).with_name(Path(name).name)), *rest]
    words += ["--target", target] if target else []
    done = subprocess.run(words, cwd=at, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where README's commands run: a folder my-gpt2, and an ImageGPT beside it."""
    at = tmp_path_factory.mktemp("folder")
    folder("gpt2", at, **SETTINGS).rename(at / "my-gpt2")
    byte_level(at / "my-gpt2" / "tokenizer.json")
    folder("imagegpt", at)
    for command in (c for c in commands() if "pxserve-export" in c):
        assert "my-gpt2" in run(command, at)
    assert main(["transformers", str(at / "imagegpt"), "--to", str(at / "models")]) == 0
    return at


@pytest.fixture(scope="module")
def target(place: Path) -> Iterator[str]:
    with serving(place / "models", log=place / "server.log") as running:
        yield running.target


@pytest.fixture(scope="module")
def client(target: str) -> Iterator[Client]:
    with Client(target, timeout_s=110.0) as it:
        yield it


def greedy(ids: list[int], new: int) -> list[int]:
    """transformers' own continuation after the begin symbol and ``ids``."""
    theirs = network("gpt2", **SETTINGS).generate(
        torch.tensor([[1, *ids]]), max_new_tokens=new, do_sample=False, eos_token_id=2, pad_token_id=0
    )
    found: list[int] = theirs[0, 1:].tolist()
    return found[:-1] if found[-1] == 2 else found


def test_the_commands_of_readme_run(place: Path, target: str) -> None:
    asked = [command for command in commands() if ".venv/bin/pxserve " in command]
    assert len(asked) >= 2
    for command in asked:
        assert run(command, place, target)


def test_a_prompt_of_text_continues_as_generate_does(client: Client, place: Path) -> None:
    tokenizer = Tokenizer(place / "my-gpt2" / "tokenizer.json")
    ids = tokenizer.encode(PROMPT)
    found = client.sample("my-gpt2", prompt=PROMPT, max_new_tokens=12, temperature=0.0)
    wanted = greedy(ids, 12)
    assert found.text[0] == tokenizer.decode(wanted)
    by_ids = client.sample("my-gpt2", prompt=np.array(ids, np.int32), max_new_tokens=12, temperature=0.0)
    assert by_ids.text == found.text


def test_streamed_text_adds_up(client: Client) -> None:
    whole = client.sample("my-gpt2", prompt=PROMPT, max_new_tokens=24, seed=5, temperature=0.8)
    events = list(client.stream_sample("my-gpt2", prompt=PROMPT, max_new_tokens=24, seed=5, temperature=0.8))
    texts = [event.text for event in events if isinstance(event, TextDelta)]
    assert len(texts) > 3
    assert PROMPT + "".join(texts) == whole.text[0]


def test_stop_strings_and_text_likelihoods(client: Client) -> None:
    free = client.sample("my-gpt2", prompt=PROMPT, max_new_tokens=24, seed=5, temperature=0.8).text[0]
    stop = next(letter for letter in free[len(PROMPT) + 2 :] if letter.isascii() and letter.isprintable())
    stopped = client.sample(
        "my-gpt2", prompt=PROMPT, max_new_tokens=24, seed=5, temperature=0.8, stop=[stop]
    ).text[0]
    assert free.startswith(stopped)
    assert stop not in stopped[len(PROMPT) :]
    scored = client.likelihood("my-gpt2", [PROMPT, "a"])
    assert scored.log_prob.shape == (2,)
    assert (scored.log_prob < 0).all()


def test_a_text_without_tokens_is_refused(client: Client) -> None:
    with pytest.raises(PxserveError, match="has 0 tokens"):
        client.likelihood("my-gpt2", [""])


def test_pictures_of_a_palette_travel_as_png(client: Client, target: str, place: Path) -> None:
    drawn = client.sample("imagegpt", 2, seed=3)
    assert drawn.data.shape == (2, 8, 8)
    observed = np.zeros((8, 8), bool)
    observed[:4] = True
    completed = client.inpaint("imagegpt", drawn.data, observed, seed=1)
    np.testing.assert_array_equal(completed.data[:, 0, :4], drawn.data[:, :4])
    with grpc.insecure_channel(target) as channel:
        stub = generative_service_pb2_grpc.GenerativeServiceStub(channel)
        reply = stub.Sample(
            sample_pb2.SampleRequest(model="imagegpt", n=2, seed=3, encoding=data_pb2.ENCODING_PNG)
        )
        pictures = (
            list(reply.samples.images.png) if hasattr(reply, "samples") else list(reply.data.images.png)
        )
        scored = stub.Likelihood(
            likelihood_pb2.LikelihoodRequest(
                model="imagegpt", data=data_pb2.Data(images=data_pb2.Images(png=pictures))
            )
        )
    assert pictures[0].startswith(b"\x89PNG")
    wanted = client.likelihood("imagegpt", drawn.data).log_prob
    np.testing.assert_array_equal(np.array(scored.log_prob), wanted)


def test_transformers_and_diffusers_import_beside_our_kernels() -> None:
    """Another distribution owns the top-level name ``kernels``, too; both libraries look at its version."""
    names = [name for name in ("transformers", "diffusers") if __import__("importlib").util.find_spec(name)]
    assert "transformers" in names
    code = f"import kernels, {', '.join(names)}; transformers.GPT2LMHeadModel; print(kernels.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=110, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert str(ROOT) in done.stdout
