"""Optional observers of a run: trackers (--track)."""
