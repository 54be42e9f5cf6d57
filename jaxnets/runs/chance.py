"""A note for a network at chance level: no better than always giving the same answer."""

from collections.abc import Sequence

import numpy as np

from jaxnets.config.fields import Config
from jaxnets.display import printable


def chance_note(
    accuracy: float, counts: np.ndarray, class_names: Sequence[str], config: Config
) -> str:
    """The line about it, from the number of test examples [K] of each class."""
    most = printable(class_names[int(counts.argmax())])
    return (
        f"note: test accuracy {accuracy:.4f} is no better than always answering {most} "
        f"({counts.max() / counts.sum():.4f}): try another --learning_rate than "
        f"{config.learning_rate:g}, or more --epochs than {config.epochs}\n"
    )
