"""Exercises: files that a student fills in or repairs, the judge of them, and their grading."""
