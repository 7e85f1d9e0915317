"""Tasks on texts that end in a class, a number, a tag for every word, or a piece of them; and how texts become tokens."""
