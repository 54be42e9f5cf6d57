"""The recipes that have a name: what --recipe=NAME changes."""

from jaxnets.config.recipes import Recipe

# --recipe=paper: Krizhevsky et al. 2012. Section 5: the update rule, the initialisation, a rate of
# 0.01 divided by 10 when the validation error stops falling, three times in all; about 90 epochs.
# Section 2: bytes minus their mean. How long to wait for the error to fall is ours.
PAPER: Recipe = dict(input_size=224, init="paper", normalize="paper", dropout=0.5)
PAPER |= dict(epochs=90, batch_size=128, learning_rate=0.01, momentum=0.9, weight_decay=5e-4)
PAPER |= dict(schedule="plateau", augment="crop,flip,pca", ten_crop=True)

# --recipe=fast: 99 % of MNIST in the least time, found on the validation images (docs/train.md):
# one cycle over little more than a pass. Dropout and shifts pay off in longer runs alone.
FAST: Recipe = dict(dropout=0.0, augment="none", label_smoothing=0.1)
FAST |= dict(batch_size=64, learning_rate=0.1, epochs=2, steps_per_epoch=500)

RECIPES = {"paper": PAPER, "fast": FAST}
