"""`make demo`: serve the reference models, ask every operation of every model, draw what comes back."""
