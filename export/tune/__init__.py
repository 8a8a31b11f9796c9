"""Which other form of a package's graphs is faster on this machine, and how far off each one is."""
