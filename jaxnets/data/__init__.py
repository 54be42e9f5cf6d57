"""Where images come from, and how they are split and batched. Nothing here imports jax."""
