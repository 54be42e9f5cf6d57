"""The update rules and the schedules in NumPy, as the libraries' documentation has them."""

import numpy as np


def numpy_update(
    name, p, g, rate, number, moments, *, momentum=0.0, nesterov=False, weight_decay=0.0
):
    """The parameter after a step, from 1, as the libraries' documentation has it; its moments."""
    first, second = moments
    if name != "adam":
        g = g + weight_decay * p  # The L2 penalty.
    if name == "sgd":  # torch.optim.SGD
        first = momentum * first + g
        p = p - rate * (g + momentum * first if nesterov else first)
    if name == "rmsprop":  # keras.optimizers.RMSprop
        second = 0.9 * second + 0.1 * g**2
        p = p - rate * g / np.sqrt(second + 1e-7)
    if name == "adam":  # torch.optim.AdamW
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        a, b = first / (1 - 0.9**number), second / (1 - 0.999**number)
        p = p - rate * (a / (np.sqrt(b) + 1e-8) + weight_decay * p)
    return p, (first, second)


def cosine(low, high, share):
    """From high to low as half a cosine wave."""
    return low + (high - low) * (1 + np.cos(np.pi * share)) / 2


def numpy_schedule(name, peak, steps, n):
    if name == "constant":
        return peak
    if name == "linear":
        return peak * (1 - n / steps)
    if name == "cosine":
        return cosine(0, peak, n / steps)
    if name == "one_cycle":
        top = int(0.3 * steps)
        if n < top:
            return cosine(peak, peak / 25, n / top)
        return cosine(peak / 25 / 1e4, peak, (n - top) / (steps - top))
    return peak * 0.1 ** ((n >= steps // 2) + (n >= 3 * steps // 4))
