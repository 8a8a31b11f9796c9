"""GPT-2 in transformers and ctranslate2 with our weights; nothing is downloaded, absent peers left out."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from tests.benchmarks.gpu.others import transformers_decoder
from tests.benchmarks.networks.decoder import Block, Decoder, Projection

Ids = NDArray[np.int64]
TOP_K = 50


class Peer(Protocol):
    """Another runtime over the same weights; ``tokens`` [rows, length] include the begin token."""

    def generate(self, tokens: Ids, new: int) -> None:
        """Draw ``new`` tokens for each row with top-k 50."""

    def score(self, tokens: Ids) -> NDArray[np.float64]:
        """log p of each token after the first, [rows, length - 1]."""


class Transformers:
    """``generate``, and logits followed by log_softmax, in eager float32."""

    def __init__(self, network: Decoder) -> None:
        self.model = transformers_decoder(network)

    @torch.inference_mode()
    def generate(self, tokens: Ids, new: int) -> None:
        """See Peer."""
        self._generate(tokens, new, do_sample=True, top_k=TOP_K)

    @torch.inference_mode()
    def greedy(self, tokens: Ids, new: int) -> Ids:
        """The likeliest continuation, [rows, new]."""
        found: Ids = self._generate(tokens, new, do_sample=False).numpy()[:, tokens.shape[1] :]
        return found

    def _generate(self, tokens: Ids, new: int, **options: object) -> torch.Tensor:
        ids = torch.from_numpy(tokens)
        fixed = {"max_new_tokens": new, "min_new_tokens": new, "pad_token_id": 0, "eos_token_id": None}
        drawn: torch.Tensor = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), **{**fixed, **options}
        )
        return drawn

    @torch.inference_mode()
    def score(self, tokens: Ids) -> NDArray[np.float64]:
        """See Peer."""
        ids = torch.from_numpy(tokens)
        law = torch.log_softmax(self.model(ids).logits[:, :-1], dim=-1)
        found: NDArray[np.float64] = law.gather(2, ids[:, 1:, None])[:, :, 0].double().numpy()
        return found


class CTranslate2:
    """Its own engine; the model is written to ``folder`` once, in float32, and rounded when it is read."""

    def __init__(self, network: Decoder, folder: Path, threads: int, compute_type: str = "float32") -> None:
        if not folder.is_dir():
            _convert(network, folder)
        library: Any = import_module("ctranslate2")
        self.generator = library.Generator(
            str(folder), device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=threads
        )

    def generate(self, tokens: Ids, new: int) -> None:
        """See Peer."""
        options = {"sampling_topk": TOP_K, "include_prompt_in_result": False, "beam_size": 1}
        found = self.generator.generate_batch(_names(tokens), max_length=new, min_length=new, **options)
        assert all(len(row.sequences_ids[0]) == new for row in found)

    def score(self, tokens: Ids) -> NDArray[np.float64]:
        """See Peer."""
        found = self.generator.score_batch(_names(tokens), max_input_length=0)
        return np.array([row.log_probs for row in found], np.float64)


def peers(network: Decoder, folder: Path, threads: int) -> dict[str, Peer]:
    """Those that are installed."""
    found: dict[str, Peer] = {}
    if find_spec("ctranslate2") is not None:
        found["ctranslate2"] = CTranslate2(network, folder, threads)
    if find_spec("transformers") is not None:
        found["transformers"] = Transformers(network)
    return found


def rounded_peers(network: Decoder, folder: Path, threads: int) -> dict[str, Peer]:
    """Those that are installed and hold weights in 8 bits."""
    if find_spec("ctranslate2") is None:
        return {}
    return {"ctranslate2": CTranslate2(network, folder, threads, "int8")}


def _names(tokens: Ids) -> list[list[str]]:
    return [[f"t{token}" for token in row] for row in tokens.tolist()]


def _convert(network: Decoder, folder: Path) -> None:
    """Fill ctranslate2's own specification, as its converter for GPT-2 does from a checkpoint."""
    specs: Any = import_module("ctranslate2.specs")
    size = network.size
    spec = specs.TransformerDecoderModelSpec.from_config(
        size.layers, size.heads, pre_norm=True, activation=specs.Activation.GELUTanh
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = network.wte.weight.detach().numpy()
    decoder.position_encodings.encodings = network.wpe.weight.detach().numpy()
    _norm(decoder.layer_norm, network.ln_f)
    for layer, block in zip(decoder.layer, network.h, strict=True):
        assert isinstance(block, Block)
        _norm(layer.self_attention.layer_norm, block.ln_1)
        _linear(layer.self_attention.linear[0], block.attn.c_attn)
        _linear(layer.self_attention.linear[1], block.attn.c_proj)
        _norm(layer.ffn.layer_norm, block.ln_2)
        _linear(layer.ffn.linear_0, block.mlp.c_fc)
        _linear(layer.ffn.linear_1, block.mlp.c_proj)
    spec.register_vocabulary([f"t{token}" for token in range(size.vocabulary)])
    last = f"t{size.vocabulary - 1}"
    spec.config.unk_token = spec.config.bos_token = spec.config.eos_token = last
    spec.validate()
    spec.optimize(quantization="float32")
    folder.mkdir(parents=True)
    spec.save(str(folder))


def _norm(spec: Any, norm: torch.nn.LayerNorm) -> None:
    spec.gamma, spec.beta = norm.weight.detach().numpy(), norm.bias.detach().numpy()


def _linear(spec: Any, projection: Projection) -> None:
    spec.weight = np.ascontiguousarray(projection.weight.detach().numpy().T)
    spec.bias = projection.bias.detach().numpy()
