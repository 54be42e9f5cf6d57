"""Finds settings: a search over several seeds, and the learning-rate range test."""
