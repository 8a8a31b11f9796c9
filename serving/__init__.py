"""The server: api, engine, families, runtime."""
