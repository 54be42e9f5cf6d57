"""Looking at a network or at runs."""
