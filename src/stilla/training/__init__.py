"""One optimisation: from a model, its teacher and its objectives to trained weights."""
