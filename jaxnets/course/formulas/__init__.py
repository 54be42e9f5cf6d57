"""Formulas in index notation: read, computed, and written as NumPy."""
