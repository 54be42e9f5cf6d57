"""Faster forms of the layers in `backprop`, each for some platforms: `accelerate` applies them."""
