"""Model folders as transformers saves them (config.json, safetensors, tokenizer.json) to packages."""
