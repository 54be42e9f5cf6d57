"""The default recipe of each network of the lecture."""

from typing import Any

from jaxnets.errors import UserError

DEFAULT_MODEL = "cnn"

# Fields for which only some models have a value: those whose presets name them.
MODEL_FIELDS = ("hidden", "activation", "dropout", "input_size", "latent_dims")
MODEL_FIELDS += ("init", "normalize", "recipe")
# Names that many programs have for a field; config/guesses.py answers others.
ALIASES = dict(lr="learning_rate", bs="batch_size", wd="weight_decay")
LARGE_ALEXNETS = ("alexnet", "alexnet_paper", "alexnet_ungrouped")

# Keras' default learning rates, for an optimizer that is not the recipe's.
KERAS_RATES = {"sgd": 0.01, "rmsprop": 0.001, "adam": 0.001, "muon": 0.001}

Recipe = dict[str, Any]

# The networks of each value of --recipe; named_recipes.py has the fields that it brings.
NAMED = {"paper": LARGE_ALEXNETS, "fast": ("cnn",)}

_ONE_CYCLE: Recipe = dict(schedule="one_cycle", batch_size=128, momentum=0.9)
_BATCH_NORM: Recipe = _ONE_CYCLE | dict(learning_rate=0.1, nesterov=True)
_ALEXNET: Recipe = _ONE_CYCLE | dict(init="he", weight_decay=5e-4)
_LARGE_ALEXNET: Recipe = _ALEXNET | dict(recipe=None, dropout=0.5, input_size=64)
_LARGE_ALEXNET |= dict(normalize="none", epochs=2, learning_rate=0.01)
_SMALL_ALEXNET: Recipe = _ALEXNET | dict(dropout=0.3, input_size=None, normalize="imagenet")
_SMALL_ALEXNET |= dict(augment="crop", epochs=20, learning_rate=0.03, nesterov=True)

# The default recipe of each network: the network's fields | the training's. It is the
# lecture's recipe where it has one (shared words: "Keras' default" where its code leaves an
# argument out); the others are ours, measured in docs/train.md.
PRESETS: dict[str, Recipe] = {
    # The lecture names f(Wx + θ) and trains it nowhere: ours.
    "softmax": dict(epochs=10, batch_size=100, learning_rate=0.5, schedule="cosine"),
    # Slide "Keras的序列模型": SGD 0.1, mse; batch 32 is Keras' default, the epochs are ours.
    "mlp_sequential": dict(hidden=(64, 64), activation="relu")
    | dict(epochs=10, batch_size=32, learning_rate=0.1, loss="mse"),
    # Slide "Keras的函数式模型": rmsprop, cross-entropy, fit(data, labels): batch 32, 0.001 are
    # Keras' defaults; its one epoch is too, ours are 5.
    "mlp_functional": dict(hidden=(64, 64), activation="relu")
    | dict(epochs=5, batch_size=32, optimizer="rmsprop", learning_rate=0.001),
    # Slide "基于Keras库构建全连接神经网络": fits all 60,000 images, 118 steps an epoch.
    "mlp": dict(hidden=(512,), activation="relu")
    | dict(epochs=50, batch_size=512, learning_rate=0.1, loss="mse", validation_size=0),
    # Slide "全连接神经网络的自定义编码实现": 20 full-batch steps on 55,000 images for each hidden
    # size, then 50 on 60,000 with the best (200 on the slide), summed gradient.
    "mlp_handwritten": dict(hidden=(200,), activation="relu")
    | dict(latent_dims=(100, 200, 300), search_epochs=20, log_format="lecture", gradients="manual")
    | dict(epochs=50, batch_size=None, learning_rate=1e-5, reduction="sum", validation_size=0),
    # The lecture has only the title: ours, the best found within four minutes on two cores.
    "cnn": dict(recipe=None, hidden=(256,), activation="relu", dropout=0.3, augment="shift")
    | _ONE_CYCLE
    | dict(epochs=20, learning_rate=0.15, nesterov=True, weight_decay=1e-4),
    "cnn_bn": dict(augment="affine_wide,strokes", epochs=28, clean_epochs=3, label_smoothing=0.1)
    | (_BATCH_NORM | dict(dropout=0.4, weight_decay=5e-4)),
    "cnn_tiny": dict(augment="affine", weight_decay=1e-4, epochs=20) | _BATCH_NORM,
    # The lecture has only the title. Krizhevsky et al. 2012: batch 128, momentum 0.9, decay 5e-4,
    # rate 0.01; two epochs and one cycle, which MNIST needs, instead of PAPER are ours.
    **dict.fromkeys(LARGE_ALEXNETS, _LARGE_ALEXNET),
    # Ours, for pictures of 28 to 64 pixels a side.
    "alexnet_small": _SMALL_ALEXNET,
    "alexnet_small_bn": _SMALL_ALEXNET | dict(dropout=0.0, learning_rate=0.2, label_smoothing=0.1),
}


def brought_by(recipe: Recipe, changes: Recipe) -> Recipe:
    """The fields of a recipe that changes of other fields bring with them (see fields.preset)."""
    brought: Recipe = {}
    if changes.get("recipe") in NAMED and "recipe" in recipe:
        from jaxnets.config.named_recipes import RECIPES

        brought |= RECIPES[changes["recipe"]]
    if changes.get("init_from") is not None and "normalize" in recipe:
        brought["normalize"] = "imagenet"
    if (optimizer := changes.get("optimizer", recipe["optimizer"])) != recipe["optimizer"]:
        brought |= dict(momentum=0.0, nesterov=False, learning_rate=KERAS_RATES.get(optimizer))
        if not isinstance(optimizer, str):  # A user's own.
            brought |= dict(learning_rate=KERAS_RATES["adam"], weight_decay=0.0)
    if changes.get("dry_run"):
        brought |= dict(epochs=1, search_epochs=1, clean_epochs=0)
    size, limit = brought.get("batch_size", recipe["batch_size"]), changes.get("limit")
    if size and isinstance(limit, int):
        brought["batch_size"] = max(1, min(size, limit))
    if "hidden" in changes:
        for name in ("latent_dims", "replay_seeds"):
            if name in changes:
                raise UserError(f"hidden and {name} exclude each other, got both")
        brought["latent_dims"] = None
    return brought
