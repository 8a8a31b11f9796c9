"""Who may ask what: bearer tokens, their scopes, shares and quotas. Knows nothing of gRPC."""
