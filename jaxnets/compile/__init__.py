"""Compiles a training for a machine that is not there, and reads what XLA made of it."""
