"""Architectures: each a function from a configuration and weights to a decoder. One line in ``registry``."""
