"""The A/B test: which of two models is better, and whether you may say so yet."""
