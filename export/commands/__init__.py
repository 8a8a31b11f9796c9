"""Subcommands of ``pxserve-export``: one file each, with a function that adds it to the parser."""
