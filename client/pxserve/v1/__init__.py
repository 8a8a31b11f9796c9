"""Generated messages and services of the package pxserve.v1; written by protos/generate.py."""
