"""The one place where protobuf meets NumPy and the domain; checks sizes before it allocates."""
