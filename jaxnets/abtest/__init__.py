"""The A/B test: which of two models is better, and may one say so yet."""
