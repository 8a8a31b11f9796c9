"""How a network that users have becomes a component that packages need: stated steps, never guesses."""
