"""Images: loaded, split and batched. Nothing here imports jax."""
