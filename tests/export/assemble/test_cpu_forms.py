from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.assemble.cpu_forms import CpuForms
from export.assemble.rounded import export_rounded

BFLOAT16_EPS = 2.0**-8

CALLS: dict[str, Callable[[], Tensor]] = {
    "attention": lambda: F.scaled_dot_product_attention(*_heads()),
    "attention_scaled": lambda: F.scaled_dot_product_attention(*_heads(), scale=0.5),
    "group_norm": lambda: F.group_norm(_image(8), 4, torch.linspace(0.5, 2, 16), torch.ones(16), 1e-6),
    "group_norm_of_places": lambda: F.group_norm(_image(8).flatten(2), 4),
    "linear": lambda: F.linear(_image(4).flatten(2).transpose(1, 2), _normal(8, 16), _normal(8)),
    "linear_without_bias": lambda: F.linear(_normal(2, 3, 5, 16), _normal(8, 16)),
}


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)


def _image(size: int) -> Tensor:
    return _normal(2, 16, size, size).to(memory_format=torch.channels_last)


def _heads() -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = _normal(2, 2, 9, 24).chunk(3, dim=-1)
    return query, key, value


@pytest.mark.parametrize("name", CALLS)
def test_a_form_is_its_function_within_a_rounding(name: str) -> None:
    plain = CALLS[name]()
    with CpuForms():
        formed = CALLS[name]()
    assert (formed.dtype, formed.shape) == (plain.dtype, plain.shape)
    gap = (formed.float() - plain.float()).abs().max()
    assert float(gap) <= 4 * BFLOAT16_EPS * float(plain.abs().max())


MASK = torch.ones(9, 9, dtype=torch.bool).tril()


@pytest.mark.parametrize(("mask", "causal"), [(MASK, False), (None, True)], ids=["mask", "causal"])
def test_attention_that_is_masked_is_left_alone(mask: Tensor | None, causal: bool) -> None:
    plain = F.scaled_dot_product_attention(*_heads(), mask, is_causal=causal)
    with CpuForms():
        formed = F.scaled_dot_product_attention(*_heads(), mask, is_causal=causal)
    assert torch.equal(formed, plain)


def test_long_attention_keeps_no_scores() -> None:
    long = _normal(1, 1, 1100, 4)
    with CpuForms():
        formed = F.scaled_dot_product_attention(long, long, long)
    assert torch.equal(formed, F.scaled_dot_product_attention(long, long, long))


class Block(nn.Module):
    """Norm and attention over places, as U-Nets have them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner = nn.GroupNorm(4, 16), nn.Linear(16, 16)
        self.conv = nn.Conv2d(3, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, 3, H, W] -> [rows, 16, H, W]."""
        image = self.conv(x)
        rows, channels, height, width = image.shape
        places = self.norm(image.reshape(rows, channels, height * width)).transpose(1, 2)
        asked = self.inner(places).unsqueeze(1)
        found = F.scaled_dot_product_attention(asked, asked, asked).squeeze(1)
        answer: Tensor = image + found.transpose(1, 2).reshape(rows, channels, height, width)
        return answer


def test_a_trace_holds_the_forms_and_runs_any_number_of_rows() -> None:
    torch.manual_seed(0)
    block = Block().eval()
    script = torch.jit.load(io.BytesIO(export_rounded(block, {"x": torch.randn(3, 3, 8, 8)})))  # type: ignore[no-untyped-call]
    written = str(script.inlined_graph)
    assert "scaled_dot_product_attention" not in written
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        wanted = block(x)
        gap = (script(x) - wanted).abs().max()
    assert float(gap) < 0.03 * float(wanted.abs().max())
