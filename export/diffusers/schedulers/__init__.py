"""Readers of scheduler configurations, by the kind of their process."""
