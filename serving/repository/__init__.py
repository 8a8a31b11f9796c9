"""Model versions of a folder, and where each is in its life in this process."""
