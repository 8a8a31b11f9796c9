"""Latent-variable and implicit models: autoencoder, VAE, GAN."""
