"""Diffusion, score and flow models: noise levels, plans of coefficients, and the questions they answer."""
