"""Looking at a network or a run."""
