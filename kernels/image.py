"""image_to_uint8: model output to the levels of an image, rounded, clamped and channels last, in one pass.

Bytes: 5 per element (float32 in, uint8 out), where eager moves 41 in five kernels. Floor at 32 x 3 x 256 x
256: 31 MB, 7.3 us at 4.3 TB/s. Most of the gain comes after it: a quarter of the bytes to copy to the host
and to send. Measured: not yet on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kernels._registry import register
from kernels._triton import jit

if TYPE_CHECKING:
    import triton.language as tl

SCHEMA = "image_to_uint8(Tensor x, float scale=127.5, float shift=127.5, int levels=256) -> Tensor"


def image_to_uint8(
    x: torch.Tensor, scale: float = 127.5, shift: float = 127.5, levels: int = 256
) -> torch.Tensor:
    """Return uint8 [rows, H, W, C]: floor(x * scale + shift + 1/2) clamped to 0..levels-1, NaN to 0.

    ``x`` is float32, float16 or bfloat16 [rows, C, H, W]; the defaults map [-1, 1] to 0..255.
    """
    return _operator(x, scale, shift, levels)  # type: ignore[no-any-return]


def reference(x: torch.Tensor, scale: float = 127.5, shift: float = 127.5, levels: int = 256) -> torch.Tensor:
    """The operator in torch."""
    level = torch.floor(x.float() * scale + shift + 0.5).clamp(0, levels - 1)
    return torch.where(level >= 0, level, 0.0).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@jit()
def _image_kernel(
    x_ptr: tl.tensor,
    out_ptr: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    highest: tl.tensor,
    pixels: tl.tensor,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    r = tl.program_id(0).to(tl.int64)
    n = pixels * CHANNELS
    out = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = out < n
    element = out % CHANNELS * pixels + out // CHANNELS
    x = tl.load(x_ptr + r * n + element, mask=mask, other=0.0).to(tl.float32)
    level = tl.floor(x * scale + shift + 0.5)
    level = tl.where(level >= 0.0, level, 0.0)  # NaN too
    tl.store(out_ptr + r * n + out, tl.minimum(level, highest).to(tl.uint8), mask=mask)


def configuration(n: int) -> tuple[int, int]:
    """Return (elements per program, warps), by the row's size alone."""
    return (1024, 4) if n >= 4096 else (256, 1)


def launch(x: torch.Tensor, scale: float = 127.5, shift: float = 127.5, levels: int = 256) -> torch.Tensor:
    """The operator in Triton; one launch."""
    out = _fake(x)
    rows, channels, height, width = x.shape
    if out.numel() == 0:
        return out
    block, warps = configuration(channels * height * width)
    _image_kernel[(rows, -(-channels * height * width // block))](
        x.contiguous(),
        out,
        scale,
        shift,
        float(levels - 1),
        height * width,
        CHANNELS=channels,
        BLOCK=block,
        num_warps=warps,
        enable_fp_fusion=False,
    )
    return out


def _fake(x: torch.Tensor, scale: float = 127.5, shift: float = 127.5, levels: int = 256) -> torch.Tensor:
    rows, channels, height, width = x.shape
    return x.new_empty((rows, height, width, channels), dtype=torch.uint8)


_operator = register(SCHEMA, reference, launch, _fake)
