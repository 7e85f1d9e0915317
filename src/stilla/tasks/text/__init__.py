"""Tasks on texts that end in a class or a number, and how texts become tokens."""
