"""Does a package mean what its network was trained to mean? Held-out rows say so, and alternatives name
mistakes.

A graph that agrees with its source may still be misread: v taken for the noise, pixels in [0, 1] for [-1,
1]. Each family has losses that a trained network keeps below those of guesses that know nothing; where it
does not, or where another reading of the same network fits far better, that reading is the likely mistake.
"""
