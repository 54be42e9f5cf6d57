"""Everything that a run depends on: fields, recipes. Nothing here imports jax."""
