"""Rules as code: ``python -m deploy.prometheus`` writes them once more, for the Prometheus operator."""
