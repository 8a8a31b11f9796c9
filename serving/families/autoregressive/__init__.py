"""Chain rule over symbols: tokens and pixels in a fixed order."""
