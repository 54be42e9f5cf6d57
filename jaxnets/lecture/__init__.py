"""The slides' own procedure, replayed; what the lecture says about choosing among networks."""
