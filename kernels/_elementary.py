"""log, cos and sin in float32 that give the same bits on every device, in NumPy and in Triton.

Vendors' functions differ in their last bits between CPUs, vector widths and GPUs. These are sequences of
single IEEE operations without fused multiply-add, so noise that is built on them is a pure function of its
counter. Kernels that call the Triton forms must be launched with ``enable_fp_fusion=False``. Largest errors:
log 1.2 ulp for normal positive arguments, cos and sin 5e-7 absolute. Coefficients: own minimax fits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from kernels._triton import jit

if TYPE_CHECKING:
    import triton.language as tl

Floats = npt.NDArray[np.float32]

_ROOT_HALF_BITS: Final = np.int32(0x3F3504F3)
_MANTISSA: Final = np.int32(0x7FFFFF)
_LN2_HIGH: Final = np.float32(0.693359375)
_LN2_LOW: Final = np.float32(-2.12194440e-4)
# (ln(1 + f) - f + f^2 / 2) / f^3 on [sqrt(1/2) - 1, sqrt(2) - 1], highest degree first
_LOG: Final = (
    0.08700359612703323,
    -0.1426747590303421,
    0.1491478681564331,
    -0.165775865316391,
    0.19963061809539795,
    -0.2500133812427521,
    0.3333390951156616,
)
# sin(pi f) / f and (cos(pi f) - 1) / f^2 in f^2, |f| <= 1/2, highest degree first
_SIN: Final = (
    0.07756038755178452,
    -0.5982421040534973,
    2.550069808959961,
    -5.167709827423096,
    3.1415927410125732,
)
_COS: Final = (
    -0.02442069724202156,
    0.23495392501354218,
    -1.3352160453796387,
    4.058709621429443,
    -4.934802055358887,
)


def log(x: Floats) -> Floats:
    """Natural logarithm of normal positive float32, any shape."""
    bits = x.view(np.int32) - _ROOT_HALF_BITS
    exponent = (bits >> np.int32(23)).astype(np.float32)
    bits &= _MANTISSA
    bits += _ROOT_HALF_BITS
    f = bits.view(np.float32)
    f -= np.float32(1)
    square = f * f
    result = _horner(f, _LOG)
    result *= square * f
    result -= np.multiply(square, np.float32(0.5), out=square)
    result += np.multiply(exponent, _LN2_LOW, out=square)
    result += f
    result += np.multiply(exponent, _LN2_HIGH, out=square)
    return result


def cos_sin(turns: Floats) -> tuple[Floats, Floats]:
    """cos(2 pi u) and sin(2 pi u) of float32 u in [0, 1], any shape.

    By the half angle pi (u - 1/2): no quadrants, hence no selection, which NumPy is slow at.
    """
    f = turns - np.float32(0.5)
    square = f * f
    sine = _horner(square, _SIN)
    sine *= f
    cosine = _horner(square, _COS)
    cosine *= square
    cosine += np.float32(1)
    whole_cosine = (sine - cosine) * np.add(sine, cosine, out=f)
    cosine *= sine
    cosine *= np.float32(-2)
    return whole_cosine, cosine


def _horner(x: Floats, coefficients: tuple[float, ...]) -> Floats:
    result = x * np.float32(coefficients[0])
    for coefficient in coefficients[1:-1]:
        result += np.float32(coefficient)
        result *= x
    result += np.float32(coefficients[-1])
    return result


@jit()
def log_tile(x: tl.tensor) -> tl.tensor:
    """:func:`log` in Triton; the constants repeat those above, since a kernel sees no Python floats."""
    bits = x.to(tl.int32, bitcast=True) - 0x3F3504F3
    exponent = (bits >> 23).to(tl.float32)
    f = ((bits & 0x7FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
    square = f * f
    series = f * 0.08700359612703323 + -0.1426747590303421
    series = series * f + 0.1491478681564331
    series = series * f + -0.165775865316391
    series = series * f + 0.19963061809539795
    series = series * f + -0.2500133812427521
    series = series * f + 0.3333390951156616
    result = series * (square * f) - square * 0.5
    return result + exponent * -2.12194440e-4 + f + exponent * 0.693359375


@jit()
def cos_sin_tile(turns: tl.tensor) -> tl.tensor:
    """:func:`cos_sin` in Triton."""
    f = turns - 0.5
    square = f * f
    sine = square * 0.07756038755178452 + -0.5982421040534973
    sine = (sine * square + 2.550069808959961) * square + -5.167709827423096
    sine = (sine * square + 3.1415927410125732) * f
    cosine = square * -0.02442069724202156 + 0.23495392501354218
    cosine = (cosine * square + -1.3352160453796387) * square + 4.058709621429443
    cosine = (cosine * square + -4.934802055358887) * square + 1.0
    return (sine - cosine) * (sine + cosine), cosine * sine * -2.0
