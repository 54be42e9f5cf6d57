"""The comparison's recipes for networks that do not take their own recipe."""

from jaxnets.config.recipes import Recipe

# Regression, on numeric columns. Each recipe names the network that it changes.
REGRESSION: dict[str, Recipe] = {
    # softmax without its softmax. Gradient descent on a quadratic: after 1,000 steps within 1e-4
    # of the closed form on diabetes, whose features' covariance has eigenvalues from 4.1 to 0.008.
    "linear": dict(model="softmax", loss="squared_error", schedule="constant")
    | dict(epochs=1000, batch_size=None, learning_rate=0.05, momentum=0.9),
    # The slides' two hidden layers.
    "mlp": dict(model="mlp", hidden=(64, 64), loss="squared_error")
    | dict(epochs=20, batch_size=32, optimizer="adam", learning_rate=1e-3),
}

# The capacity curve's networks have one hidden layer and are trained until they fit what they can.
_CURVE: Recipe = dict(model="mlp", optimizer="adam", learning_rate=3e-3, batch_size=50)
CURVE: dict[str, Recipe] = {
    "classification": _CURVE | dict(loss="cross_entropy", epochs=100),
    "regression": _CURVE | dict(loss="squared_error", epochs=300),
}
