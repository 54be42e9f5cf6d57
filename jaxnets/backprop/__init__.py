"""The networks' gradients by hand: each layer's forward pass with its backward pass."""
