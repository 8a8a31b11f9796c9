"""The reference networks: small, plain torch modules."""
