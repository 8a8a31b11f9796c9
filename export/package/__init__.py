"""Model packages: their schema, and reading, writing, checking and verifying them."""
