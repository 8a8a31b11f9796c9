"""Generated messages of the Open Inference Protocol (KServe v2); written by protos/generate.py."""
