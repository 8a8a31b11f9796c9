"""The engine: admits requests, batches their rows at every step, and answers with events."""
