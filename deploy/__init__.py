"""Deployment, and the demonstration that a newcomer runs first."""
