"""Tasks on pictures and the texts that belong to them."""
