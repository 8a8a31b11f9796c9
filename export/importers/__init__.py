"""Sources of packages: torch modules, ONNX files, TorchScript files; and templates of specifications."""
