"""Predicts probabilities for pictures, from a run folder."""
