"""The evaluation of a split: every example counts once."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxnets.base.trees import Params
from jaxnets.config.fields import Config
from jaxnets.data.batches import eval_batches, prefetch
from jaxnets.data.datasets import Dataset, Split
from jaxnets.losses import find_loss
from jaxnets.metrics import Sums, metric_of
from jaxnets.regression_metrics import TargetUnits
from jaxnets.training.crops import with_center_crop, with_ten_crops
from jaxnets.training.loop import accumulate_metrics
from jaxnets.training.parallel import Parallel
from jaxnets.training.step import EvalStep, make_eval_step

EVAL_BATCH_SIZE = 512  # The largest.


def compile_eval(
    config: Config,
    data: Dataset,
    apply: Callable[..., Any],
    parallel: Parallel,
    ten_crop: bool,
) -> EvalStep:
    """The step that evaluates a batch, compiled for the devices.

    Args:
      config: The loss, and the size to which images are cropped.
      data: The data set; in regression its target's mean and scale are those of the metrics.
      apply: The network's apply.
      parallel: The devices.
      ten_crop: Whether ten crops of each image are averaged, not only the middle one.
    """
    loss = find_loss(config.loss)
    metric = metric_of(loss)
    if config.input_size is not None:
        with_crops = with_ten_crops if ten_crop else with_center_crop
        apply = with_crops(apply, config.input_size)
    if data.is_regression:
        center = np.mean(data.train.labels, axis=0, dtype=np.float64)
        units = TargetUnits(data.target_mean, data.target_scale, center)
        metric = functools.partial(metric, units=units)
    eval_step = make_eval_step(apply, loss, metric=metric, axis_name=parallel.axis_name)
    return parallel.compile(eval_step)


def evaluate(
    eval_step: EvalStep,
    params: Params,
    split: Split,
    parallel: Parallel,
    views: int = 1,
    batch_size: int = EVAL_BATCH_SIZE,
) -> Sums:
    """The metrics of every example of a split, which has at least one.

    The eval_step (params, batch) -> metrics is compiled by parallel.compile. A batch has at most
    batch_size examples, or those of the split, rounded up to a multiple of the number of devices.
    If the eval_step makes several views of an example, a batch has that many times fewer examples.
    """
    count = len(parallel.devices)
    examples = min(-(-batch_size // views), len(split))
    size = -(-examples // count) * count
    total = None
    batches = eval_batches(split, size, parallel.rows(size))
    with contextlib.closing(prefetch(map(parallel.split, batches))) as ready:
        for number, batch in enumerate(ready, start=1):
            metrics = eval_step(params, batch)
            total = accumulate_metrics(total, metrics, f"evaluation batch {number}")
    assert total is not None
    return total
