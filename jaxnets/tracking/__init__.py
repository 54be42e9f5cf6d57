"""Trackers (--track): optional observers that send a run to other tools."""
