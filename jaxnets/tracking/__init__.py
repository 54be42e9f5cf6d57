"""Optional observers of a run: trackers (--track) and JAX's profiler (--profile)."""
