"""Logs and metrics: what an operator sees. Never payloads, never tokens."""
