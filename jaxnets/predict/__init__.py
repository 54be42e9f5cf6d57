"""From a run folder and pictures to probabilities."""
