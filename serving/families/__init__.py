"""Families: the mathematics of p(x), as programs over rows; knows networks only by name."""
