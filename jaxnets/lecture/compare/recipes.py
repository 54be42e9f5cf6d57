"""How the networks are trained that have no preset: those of regression, and the capacity curve's.

Nothing here imports jax, so that a wrong name is refused at once.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A dense network for regression and its training.

    Attributes:
      hidden: Units of the hidden layers; none is a linear model.
      epochs: Passes over the training examples.
      batch_size: Examples a step, None for all of them.
      optimizer: "sgd", "rmsprop" or "adam".
      learning_rate: Constant.
      momentum: Of sgd.
    """

    hidden: tuple[int, ...]
    epochs: int
    batch_size: int | None
    optimizer: str
    learning_rate: float
    momentum: float = 0.0


REGRESSION = {
    # softmax without its softmax. Gradient descent on a quadratic: after 1,000 steps within 1e-4
    # of the closed form on diabetes, whose features' covariance has eigenvalues from 4.1 to 0.008.
    "linear": Recipe(
        hidden=(), epochs=1000, batch_size=None,
        optimizer="sgd", learning_rate=0.05, momentum=0.9,
    ),
    # The slides' two hidden layers.
    "mlp": Recipe(
        hidden=(64, 64), epochs=20, batch_size=32, optimizer="adam", learning_rate=1e-3
    ),
}  # fmt: skip

# The curve's networks have one hidden layer and are trained until they fit what they can; on few
# examples, some labels wrong, so that too large a network learns the mistakes by heart.
CURVE_EXAMPLES = 500
CURVE_NOISE = 0.2
CURVE_CLASSIFICATION = dict(
    epochs=100, batch_size=50, optimizer="adam", learning_rate=3e-3, loss="cross_entropy"
)
CURVE_REGRESSION = Recipe(
    hidden=(), epochs=300, batch_size=50, optimizer="adam", learning_rate=3e-3
)
