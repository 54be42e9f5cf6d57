"""A run's network: one of the lecture's by its name, or one of the user's own by its rows."""
