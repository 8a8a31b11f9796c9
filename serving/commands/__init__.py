"""Commands that need the engine but no network port: calibrate and evaluate."""
