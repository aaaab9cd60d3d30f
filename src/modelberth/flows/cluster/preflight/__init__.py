"""The checks of `berth doctor`, by what they look at; each says what it found, and a way out."""
