"""Vectors of texts, and what is found by them."""
