"""Tasks whose rows are tokens of a vocabulary: language models, translation, summaries."""
