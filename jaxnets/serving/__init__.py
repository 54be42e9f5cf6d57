"""Predictions of a trained run for new pictures."""
