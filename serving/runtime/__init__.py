"""Runtimes: graphs as functions over rows; the only place that knows ONNX Runtime and TorchScript."""
