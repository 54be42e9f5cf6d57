"""The check of the hand-derived gradients, by autodiff of stock JAX and by central differences."""
