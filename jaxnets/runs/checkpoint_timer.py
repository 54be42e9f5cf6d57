"""When a run saves how far it has come."""

import time


class CheckpointTimer:
    """Tells when so many steps, epochs or seconds have passed since the last save.

    Steps and epochs are counted from the run's beginning, so that a resumed run saves where an
    uninterrupted one does.
    """

    def __init__(self, number: int, unit: str, steps_per_epoch: int, step: int):
        """Starts.

        Args:
          number: How many.
          unit: "steps", "epochs" or "seconds".
          steps_per_epoch: Of the run.
          step: Steps done.
        """
        self._seconds = float(number) if unit == "seconds" else None
        self._steps = number * (steps_per_epoch if unit == "epochs" else 1)
        self.saved(step)

    def saved(self, step: int) -> None:
        """Takes note of a save after so many steps."""
        self._step, self._time = step, time.monotonic()

    def due(self, step: int, saving: bool = False) -> bool:
        """Whether to save after so many steps.

        Args:
          step: Steps done.
          saving: Whether the last save is still being written. Where time sets the pace, the next
            one then comes later: no step waits for a disk that is slower than asked.
        """
        if self._seconds is not None:
            return not saving and time.monotonic() - self._time >= self._seconds
        return step // self._steps > self._step // self._steps
