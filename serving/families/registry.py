"""Which class speaks for which family; a new family is one line here."""

from __future__ import annotations

from importlib import import_module

from export.package.schema import ModelSpec
from serving.families.calibration import Calibration
from serving.families.rows import Family

FAMILIES = {
    "autoregressive": "serving.families.autoregressive.family:AutoregressiveFamily",
    "autoencoder": "serving.families.latent.autoencoder:AutoencoderFamily",
    "vae": "serving.families.latent.vae:VaeFamily",
    "gan": "serving.families.latent.gan:GanFamily",
    "diffusion": "serving.families.diffusion.family:DiffusionFamily",
}


def family_of(spec: ModelSpec, calibration: Calibration | None = None) -> Family:
    """The mathematics of a package."""
    module, name = FAMILIES[spec.family].split(":")
    family: Family = getattr(import_module(module), name)(spec, calibration)
    return family
