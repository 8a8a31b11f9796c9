"""Networks with a latent vector: an autoencoder, a variational autoencoder, and a GAN with an encoder.

Convolutional halves shared by all: 8x8 pixels <-> 4x4 coarse pixels, resolution changed by moving pixels
between space and channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """x + a two-layer convolution of x, the second layer starting at zero; [rows, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.outer = nn.Conv2d(channels, channels, 3, padding=1)
        self.activation = nn.SiLU()
        nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape out."""
        out: Tensor = x + self.outer(self.activation(self.inner(self.activation(x))))
        return out


class Contract(nn.Module):
    """Images [rows, 1, 8, 8] -> vectors [rows, features]."""

    def __init__(self, features: int, fine: int, coarse: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(1, fine, 3, padding=1)
        self.fine = Residual(fine)
        self.down = nn.Conv2d(4 * fine, coarse, 1)
        self.coarse = Residual(coarse)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(16 * coarse, features)
        self.activation = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """``x`` in model coordinates."""
        fine = self.fine(self.conv_in(x))
        coarse = self.coarse(self.down(torch.pixel_unshuffle(fine, 2)))
        out: Tensor = self.out(self.dropout(self.activation(coarse).flatten(1)))
        return out


class Expand(nn.Module):
    """Vectors [rows, features] -> images [rows, channels, 8, 8]."""

    def __init__(self, features: int, channels: int, fine: int, coarse: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.start = nn.Linear(features, 16 * coarse)
        self.coarse = Residual(coarse)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.fine = Residual(fine)
        self.conv_out = nn.Conv2d(fine, channels, 3, padding=1)
        self.activation = nn.SiLU()
        self.width = coarse

    def forward(self, latent: Tensor) -> Tensor:
        """Unbounded output."""
        coarse = self.coarse(self.start(latent).reshape(-1, self.width, 4, 4))
        fine = self.fine(torch.pixel_shuffle(self.up(self.dropout(coarse)), 2))
        out: Tensor = self.conv_out(self.activation(fine))
        return out


class AutoencoderEncoder(Contract):
    """``x`` [rows, 1, 8, 8] -> ``latent`` [rows, 12]."""

    def __init__(self, latent: int = 12) -> None:
        super().__init__(latent, 16, 32)


class AutoencoderDecoder(Expand):
    """``latent`` [rows, 12] -> ``x`` [rows, 1, 8, 8]."""

    def __init__(self, latent: int = 12) -> None:
        super().__init__(latent, 1, 16, 32)


class Autoencoder(nn.Module):
    """Both halves (Hinton and Salakhutdinov 2006)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = AutoencoderEncoder()
        self.decoder = AutoencoderDecoder()

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction of ``x``."""
        out: Tensor = self.decoder(self.encoder(x))
        return out


class VaeEncoder(nn.Module):
    """``x`` [rows, 1, 8, 8] -> ``mean`` and ``log_variance`` [rows, 16] of q(z | x)."""

    def __init__(self, latent: int = 16) -> None:
        super().__init__()
        self.body = Contract(2 * latent, 24, 48, dropout=0.3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log-variances lie in [-12, 4], so that no variance vanishes."""
        mean, spread = self.body(x).chunk(2, dim=1)
        return mean, spread.clamp(-12.0, 4.0)


class VaeDecoder(nn.Module):
    """``latent`` [rows, 16] -> ``mean`` and ``log_scale`` [rows, 1, 8, 8] of discretised logistics."""

    def __init__(self, latent: int = 16) -> None:
        super().__init__()
        self.body = Expand(latent, 2, 24, 48, dropout=0.2)

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Log-scales lie in [-5, 2] model units (a level is 0.125 wide: e^-5 is a twentieth of one)."""
        mean, log_scale = self.body(latent).chunk(2, dim=1)
        return mean, (log_scale - 2.0).clamp(-5.0, 2.0)


class Vae(nn.Module):
    """Both halves (Kingma and Welling 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = VaeEncoder()
        self.decoder = VaeDecoder()


class Generator(nn.Module):
    """``latent`` [rows, 32] ~ N(0, I) -> ``x`` [rows, 1, 8, 8] in [-1, 1]."""

    def __init__(self, latent: int = 32) -> None:
        super().__init__()
        self.latent = latent
        self.mix = nn.Sequential(nn.Linear(latent, 64), nn.SiLU())
        self.body = Expand(64, 1, 32, 64)

    def forward(self, latent: Tensor) -> Tensor:
        """Bounded by tanh, stretched by a twentieth so that black and white are reached."""
        return (1.05 * torch.tanh(self.body(self.mix(latent)))).clamp(-1.0, 1.0)


class Discriminator(nn.Module):
    """``x`` [rows, 1, 8, 8] -> ``logit`` [rows] (larger: more like the data)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Contract(1, 32, 64)

    def forward(self, x: Tensor) -> Tensor:
        """Rows are judged apart from one another."""
        out: Tensor = self.body(x).squeeze(1)
        return out


class GanEncoder(Contract):
    """``x`` [rows, 1, 8, 8] -> ``latent`` [rows, 32]: where an inversion starts."""

    def __init__(self, latent: int = 32) -> None:
        super().__init__(latent, 24, 48)


class Gan(nn.Module):
    """Generator, discriminator and encoder (Goodfellow et al. 2014; Donahue et al. 2017 for the last)."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = Generator()
        self.discriminator = Discriminator()
        self.encoder = GanEncoder()
