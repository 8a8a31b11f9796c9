"""Logs, metrics and traces: what an operator sees. Never payloads, never tokens."""
