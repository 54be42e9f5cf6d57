"""Runs a step on several devices by jit, shard_map or pmap. One function serves all three."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jaxnets.base.errors import UserError
from jaxnets.base.trees import Tree
from jaxnets.config.fields import Config
from jaxnets.machine.platform import Devices, compiler_options_for_step, set_up_jax

AXIS = "devices"


class Parallel:
    """Compiles functions of (replicated arguments ..., batch) for the devices.

    Attributes:
      devices: The devices of all processes, in their order.
      kind: With "jit", a function sees the whole batch; with "shard_map" or "pmap", it runs on
        every device and sees that device's rows.
      platform: The devices' kind: "cpu", "gpu" or "tpu".
      sharded: Whether XLA splits a batch over several devices by itself.
      axis_name: The devices' axis, over which the step adds its sums; None under jit, where XLA
        adds over devices by itself.
    """

    def __init__(self, devices: Devices, kind: str = "auto", *, convolutions: bool = False):
        """Takes the devices, and whether a network has convolutions; "auto" is pmap on several."""
        if kind == "auto":
            kind = "pmap" if len(devices) > 1 else "jit"
        self.devices, self.kind = devices, kind
        self.platform = devices[0].platform
        self.sharded = kind == "jit" and len(devices) > 1
        self._options = compiler_options_for_step(convolutions, self.platform)
        self.axis_name = None if kind == "jit" else AXIS
        here = jax.process_index()
        self._here = [device for device in devices if device.process_index == here]
        # pmap takes and returns only this process's values. jax.make_mesh would reorder a TPU's
        # devices, and a process's rows would no longer be those of its devices.
        self._mesh = Mesh(np.array(self._here if kind == "pmap" else devices), (AXIS,))

    def compile(
        self,
        function: Callable[..., Tree],
        *,
        replicated: int = 1,
        axis: int = 0,
        donate: bool = False,
    ) -> Callable[..., Tree]:
        """Compiles a function whose last argument is split over the devices.

        Args:
          function: (replicated arguments ..., batch) -> replicated values.
          replicated: The number of arguments that every device holds whole.
          axis: The examples' axis of the last argument, as passed to `split`.
          donate: Whether the result may reuse the first argument's memory.
        """
        donated = (0,) if donate else ()
        if self.kind == "shard_map":
            specs = (*[jax.P()] * replicated, _spec(axis))
            function = jax.shard_map(function, mesh=self._mesh, in_specs=specs, out_specs=jax.P())
        if self.kind == "pmap":
            placed: dict[str, Any] = dict(in_axes=(None,) * replicated + (0,), out_axes=None)
            function = jax.pmap(
                function, AXIS, devices=self.devices, donate_argnums=donated, **placed
            )
            if self._options is None or len(self._here) < len(self.devices):
                return function
            # pmap takes no options; a jit around it passes them, but only within one process. The
            # partial hides pmap's own `lower`, which jax.jit would pass on.
            function = functools.partial(function)
        return jax.jit(function, donate_argnums=donated, compiler_options=self._options)

    def replicate(self, tree: Tree) -> Tree:
        """Copies a tree, the same in every process, to every device."""
        everywhere = self._everywhere
        if everywhere.is_fully_addressable:
            return jax.device_put(tree, everywhere)

        def put(leaf: jax.Array) -> jax.Array:
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                data = put(jax.random.key_data(leaf))
                return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
            array = np.asarray(leaf)
            return jax.make_array_from_callback(array.shape, everywhere, lambda at: array[at])

        return jax.tree.map(put, tree)

    def rows(self, size: int) -> slice:
        """The rows of a batch of this size that belong to this process's devices."""
        share, first = size // len(self.devices), self.devices.index(self._here[0])
        return slice(first * share, (first + len(self._here)) * share)

    def check_batch_size(self, size: int) -> None:
        """Raises UserError unless the devices can share a batch evenly."""
        if size % len(self.devices):
            raise UserError("batch_size {} is not divisible by {} devices", size, len(self.devices))

    def split(self, tree: Tree, axis: int = 0) -> Tree:
        """Gives each of this process's devices its share of every array along the examples' axis.

        Each of several processes passes its own `rows`. Raises UserError if they cannot be shared
        evenly.
        """
        count = len(self._here)
        size = jax.tree.leaves(tree)[0].shape[axis]
        self.check_batch_size(size * len(self.devices) // count)
        if self.kind == "pmap":
            return jax.tree.map(lambda x: _shares(x, count, axis), tree)
        spread = self._spread(axis)
        if spread.is_fully_addressable:
            # A CPU's step would not wait for a copy, but run later, in another thread.
            return jax.block_until_ready(jax.device_put(tree, spread))
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(spread, x), tree)

    @property
    def _everywhere(self) -> NamedSharding:
        return NamedSharding(self._mesh, jax.P())

    def _spread(self, axis: int) -> NamedSharding:
        return NamedSharding(self._mesh, _spec(axis))


def find_devices(config: Config) -> Devices:
    """The devices that the config asks for; UserError if they are not there."""
    if config.is_distributed and not jax.distributed.is_initialized():
        raise UserError("only train.py supports distributed and coordinator")
    return set_up_jax(
        config.devices,
        config.precision,
        platform=config.platform,
        cpu_devices=config.cpu_devices,
        connected=config.is_distributed,
    )


def _spec(axis: int) -> jax.P:
    """The layout of arrays whose given axis is split over the devices."""
    return jax.P(*[None] * axis, AXIS)


def _shares(x: np.ndarray, count: int, axis: int) -> np.ndarray:
    """[..., B, ...] → [count, ..., B / count, ...]: a view, no copy."""
    shape = (*x.shape[:axis], count, x.shape[axis] // count, *x.shape[axis + 1 :])
    return np.moveaxis(x.reshape(shape), axis, 0)
