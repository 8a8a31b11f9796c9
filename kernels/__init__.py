"""Triton kernels, each beside its torch reference; knows nothing of serving."""
