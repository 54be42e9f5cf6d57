"""The networks' gradients by hand: each layer's forward pass beside its backward pass."""
