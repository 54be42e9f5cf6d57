"""Finding settings: a search over seeds, the learning-rate range test."""
