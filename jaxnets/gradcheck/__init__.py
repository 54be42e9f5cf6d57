"""The judge of the gradients by hand: autodiff of stock JAX, and central differences."""
