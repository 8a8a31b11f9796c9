"""Networks as graphs: torch modules written as ONNX or TorchScript, free of traces of the machine."""
