"""Hostile input of every kind, for benchmarks/fuzz.py and tests/test_fuzz.py."""
