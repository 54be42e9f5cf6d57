"""Predicts probabilities for pictures, from a run folder."""

ENGINES = ("jax", "onnxruntime")  # What may compute a network.
