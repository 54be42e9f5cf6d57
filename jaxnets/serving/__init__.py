"""A trained run at work on pictures that it has never seen."""
