"""TorchScript files of the reference models: code that the server may run without being told to."""

from __future__ import annotations

TORCHSCRIPT_SHA256: frozenset[str] = frozenset(
    {
        "573be6aff4959d5acba46e44b189782cc89653634d12ff63d7d8b962e30c91b4",  # digits-autoencoder, decoder.pt
        "eeadea44e331fe2d3ebcf0b7d6f4d2dec50bca57e595b886ccfb0f85aa9f757a",  # digits-autoencoder, encoder.pt
    }
)
