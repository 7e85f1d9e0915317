"""Tasks on texts that end in a class, a number, or a tag for every word; and how texts become tokens."""
