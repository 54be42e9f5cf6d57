"""The page that shows a trained network at work: forward, backward, and the sum behind a number."""
