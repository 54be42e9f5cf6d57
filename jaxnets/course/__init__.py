"""The lecture as a course: its exercises, their grading, and the replay of its own program."""
