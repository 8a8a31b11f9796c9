"""onnxruntime-genai beside our engine, on one transformers folder with GPT-2's sizes.

Its builder knows no GPT-2, so the folder is a Llama of the same width, depth and vocabulary.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.cli import main as export
from tests.benchmarks.figures import Figure
from tests.benchmarks.gpt2 import Served, Work, greedy, interleaved, served, with_begin
from tests.benchmarks.gpt2_peers import TOP_K
from tests.export.transformers.folders import byte_level

TITLE = "A Llama of GPT-2's size (124M, float32) against onnxruntime-genai"
NOTE = (
    "One folder with random weights, exported by each; top-k 50, 32 new tokens after 8 given ones, prefill "
    "included, 2 threads; ours serves one request per sequence, theirs one batch. Greedy continuations are "
    "the same tokens (checked). Medians of the ratio within interleaved rounds."
)
FOLDER = Path("build/peers/genai")
SIZES = {
    "vocab_size": 50257, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 12, "num_key_value_heads": 12, "max_position_embeddings": 256,
    "bos_token_id": 50256, "eos_token_id": 50256, "pad_token_id": 0, "tie_word_embeddings": True,
}  # fmt: skip
GIVEN, NEW, GREEDY, THREADS = 8, 32, 12, 2
ROWS = (1, 8, 16)
Ids = NDArray[np.int64]


class GenAi:
    """Its engine over the folder that its builder wrote."""

    def __init__(self, folder: Path) -> None:
        self.library: Any = import_module("onnxruntime_genai")
        self.model = self.library.Model(str(folder))

    def generate(self, tokens: Ids, new: int, *, sample: bool = True) -> Ids:
        """``new`` tokens for each row [rows, length]."""
        rows, length = tokens.shape
        options = {"do_sample": True, "top_k": TOP_K, "temperature": 1.0} if sample else {"do_sample": False}
        parameters = self.library.GeneratorParams(self.model)
        until = length + new
        parameters.set_search_options(batch_size=rows, max_length=until, min_length=until, **options)
        generator = self.library.Generator(self.model, parameters)
        generator.append_tokens(tokens.astype(np.int32))
        for _ in range(new):
            generator.generate_next_token()
        return np.stack([generator.get_sequence(row)[length:until] for row in range(rows)]).astype(np.int64)


def run() -> list[Figure]:
    """Tokens per second, and the ratios."""
    if find_spec("onnxruntime_genai") is None:
        note = "onnxruntime-genai is not installed here, so nothing is compared with it."
        return [Figure(TITLE, "onnxruntime-genai: absent", float("nan"), note=note)]
    torch.set_num_threads(THREADS)
    theirs = GenAi(built())
    with served(exported()) as ours:
        tokens = with_begin(ours, 4, GIVEN)
        same = np.array_equal(greedy(ours, tokens, GREEDY), theirs.generate(tokens, GREEDY, sample=False))
        assert same, "greedy continuations differ"
        return [figure for rows in ROWS for figure in drawing(ours, theirs, rows)]


def drawing(ours: Served, theirs: GenAi, rows: int) -> list[Figure]:
    """With ``rows`` sequences at a time."""
    tokens = with_begin(ours, rows, GIVEN)
    work: dict[str, Work] = {
        "ours": lambda: ours.generate(tokens[:, 1:], NEW),
        "theirs": lambda: theirs.generate(tokens, NEW),
    }
    taken = interleaved(work)
    rate = float(np.median(rows * NEW / taken["ours"]))
    ratio = float(np.median(taken["theirs"] / taken["ours"]))
    label = f"sampling, {rows} at once"
    return [
        Figure(TITLE, f"{label}: ours", rate, unit="tokens/s", note=NOTE),
        Figure(TITLE, f"{label}: over onnxruntime-genai", ratio, 1.0, "at least", "x", NOTE),
    ]


def source() -> Path:
    """The transformers folder, written at the first use."""
    folder = FOLDER / "llama-124m"
    if not (folder / "tokenizer.json").exists():
        library: Any = import_module("transformers")
        torch.manual_seed(0)
        library.LlamaForCausalLM(library.LlamaConfig(**SIZES)).save_pretrained(folder)
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        byte_level(folder / "tokenizer.json")
    return folder


def exported() -> Path:
    """Our package of it."""
    folder = FOLDER / "ours" / "llama-124m" / "1"
    if not folder.exists():
        flags = ["--to", str(FOLDER / "ours"), "--license", "Apache-2.0"]
        assert export(["transformers", str(source()), *flags]) == 0
    return folder


def built() -> Path:
    """Their folder of it, with our number of threads."""
    folder = FOLDER / "theirs"
    settings = folder / "genai_config.json"
    if not settings.exists():
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source()), "-o",
                   str(folder), "-p", "fp32", "-e", "cpu", "-c", str(FOLDER / "cache")]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        config = json.loads(settings.read_text())
        config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = THREADS
        settings.write_text(json.dumps(config, indent=1))
    return folder
