"""What follows a run that asks for it: trackers (--track) and JAX's profiler (--profile)."""
