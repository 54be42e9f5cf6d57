"""The recipes of the lecture's networks: each one's own, and those that have a name."""

from typing import Any

DEFAULT_MODEL = "cnn"

# Fields for which only some models have a value: those whose presets name them.
MODEL_FIELDS = ("hidden", "activation", "dropout", "input_size")
MODEL_FIELDS += ("init", "normalize", "recipe")
LARGE_ALEXNETS = ("alexnet", "alexnet_paper")

# Keras's default learning rates, for an optimizer that is not the recipe's.
KERAS_RATES = {"sgd": 0.01, "rmsprop": 0.001, "adam": 0.001, "muon": 0.001}

Recipe = dict[str, Any]

_ONE_CYCLE: Recipe = dict(schedule="one_cycle", batch_size=128, momentum=0.9)
_BATCH_NORM: Recipe = _ONE_CYCLE | dict(learning_rate=0.1, nesterov=True)
_ALEXNET: Recipe = _ONE_CYCLE | dict(init="he", weight_decay=5e-4)
_LARGE_ALEXNET: Recipe = _ALEXNET | dict(recipe=None, dropout=0.5, input_size=64)
_LARGE_ALEXNET |= dict(normalize="none", epochs=2, learning_rate=0.01)
_SMALL_ALEXNET: Recipe = _ALEXNET | dict(dropout=0.3, input_size=None, normalize="imagenet")
_SMALL_ALEXNET |= dict(augment="crop", epochs=20, learning_rate=0.03, nesterov=True)

# The default recipe of each network: the network's fields | the training's. It is the
# lecture's recipe where it has one (shared words: "Keras's default" where its code leaves an
# argument out); the others are ours, measured in docs/train.md.
PRESETS: dict[str, Recipe] = {
    # The lecture names f(Wx + θ) but never trains it: ours.
    "softmax": dict(epochs=10, batch_size=100, learning_rate=0.5, schedule="cosine"),
    # Slide "Keras的序列模型": SGD 0.1, mse; batch 32 is Keras's default, the epochs are ours.
    "mlp_sequential": dict(hidden=(64, 64), activation="relu")
    | dict(epochs=10, batch_size=32, learning_rate=0.1, loss="mse"),
    # Slide "Keras的函数式模型": rmsprop, cross-entropy, fit(data, labels): batch 32, 0.001 are
    # Keras's defaults; its one epoch is too, ours are 5.
    "mlp_functional": dict(hidden=(64, 64), activation="relu")
    | dict(epochs=5, batch_size=32, optimizer="rmsprop", learning_rate=0.001),
    # Slide "基于Keras库构建全连接神经网络": fits all 60,000 images, 118 steps an epoch.
    "mlp": dict(hidden=(512,), activation="relu")
    | dict(epochs=50, batch_size=512, learning_rate=0.1, loss="mse", validation_size=0),
    # Slide "全连接神经网络的自定义编码实现": 20 full-batch steps on 55,000 images for each hidden
    # size (`jaxnets replay`), then 50 on 60,000 with the best, 200 units: this; summed gradient.
    "mlp_handwritten": dict(hidden=(200,), activation="relu", gradients="manual", epochs=50)
    | dict(batch_size=None, learning_rate=1e-5, reduction="sum", validation_size=0),
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
    # He et al. 2016, section 4.2: batch 128, rate 0.1, momentum 0.9, shifts by up to 4 pixels; 164
    # epochs in three steps, decay 1e-4. One cycle of 30 epochs and its decay are ours; mirrors,
    # which do not suit digits, are --augment=crop,flip.
    "resnet20": _BATCH_NORM
    | dict(normalize="imagenet", augment="crop", weight_decay=5e-4, epochs=30),
}

# For a network of the user's own, whose file may say otherwise: this trains most networks.
OWN: Recipe = dict(optimizer="adam", learning_rate=0.001, schedule="one_cycle", batch_size=128)

# --recipe=paper: Krizhevsky et al. 2012. Section 5: the update rule, the initialization, a rate of
# 0.01 divided by 10 when the validation error stops falling, three times in all; about 90 epochs.
# Section 2: bytes minus their mean. How long to wait for the error to fall is our choice.
PAPER: Recipe = dict(input_size=224, init="paper", normalize="paper", dropout=0.5)
PAPER |= dict(epochs=90, batch_size=128, learning_rate=0.01, momentum=0.9, weight_decay=5e-4)
PAPER |= dict(schedule="plateau", augment="crop,flip,pca", ten_crop=True)

# --recipe=fast: 99 % of MNIST in the least time, found on validation images (benchmarks/notes):
# one cycle over less than a pass. Dropout and shifts pay off only in longer runs.
FAST: Recipe = dict(dropout=0.0, augment="none", label_smoothing=0.1)
FAST |= dict(batch_size=64, learning_rate=0.3, epochs=2, steps_per_epoch=350)

# The recipes with a name, whole, for the networks that have them: what --recipe=NAME trains.
NAMED: dict[str, dict[str, Recipe]] = {
    "paper": {model: PRESETS[model] | PAPER for model in LARGE_ALEXNETS},
    "fast": {"cnn": PRESETS["cnn"] | FAST},
}
