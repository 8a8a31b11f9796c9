"""Samplers: each a function from levels to lines of coefficients. A new one is a line in ``registry``."""
