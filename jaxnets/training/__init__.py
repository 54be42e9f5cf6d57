"""Training: one step, its parallel forms, and the loop. It receives functions, not networks."""
