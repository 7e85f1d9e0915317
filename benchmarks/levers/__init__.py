"""What single levers of a recipe are worth, and what they cost: small cases that need no data, minutes of one thread."""
