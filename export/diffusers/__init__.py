"""From a folder that diffusers saved to a package: denoisers, their schedulers, autoencoders and encoders."""
