"""Stilla turns a large Transformer into a small one, and says honestly how much it kept."""
