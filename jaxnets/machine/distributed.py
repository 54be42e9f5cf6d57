"""What the processes of one run ask each other (docs/several-hosts.md).

A process by itself answers at once, without connection.py, which only `connected` loads. Texts
travel through the coordinator's store of keys and values, also before JAX has devices; arrays
travel between the devices.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxnets.errors import UserError
from jaxnets.machine.platform import versions

if TYPE_CHECKING:
    from jaxnets.machine.connection import Connection

# Flags that may differ from process to process: only process 0's workdir counts, and the data are
# compared by their checksum.
OWN_FLAGS = ("process_id", "workdir", "data_dir")
FOREVER = 10**9  # Milliseconds. A process that waits in vain is ended by Connection or by JAX.

_connection: "Connection | None" = None


@contextlib.contextmanager
def connected(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    flags: dict[str, Any],
) -> Iterator[None]:
    """Connects this process to the others while the context lasts; enter it before JAX starts.

    An error in one process ends all: the others print its message and exit with its status.

    Args:
      coordinator: HOST:PORT of process 0. With None, JAX finds it, the number of processes and
        this one's number on a TPU pod and under SLURM, Open MPI or Kubernetes.
      num_processes: The number of processes.
      process_id: This process's number, from 0.
      flags: This process's flags; the others must have the same.

    Raises:
      UserError: There is nothing to connect to, or the flags differ.
    """
    global _connection
    from jaxnets.machine.connection import Connection

    _connection = connection = Connection(coordinator, num_processes, process_id)
    try:
        shared = {name: value for name, value in flags.items() if name not in OWN_FLAGS}
        assert_equal_across_processes("flags", {**versions(), **shared})
        yield
    except BaseException as error:
        connection.leave(error)
        raise
    connection.finish()
    _connection = None


def is_connected() -> bool:
    """Whether this process is connected to others."""
    return _connection is not None


def is_first() -> bool:
    """Whether this process prints and writes the run folder: process 0, or a run's only one."""
    return _connection is None or _connection.process_id == 0


def assert_equal_across_processes(name: str, values: dict[str, Any]) -> None:
    """Checks that every process has the same values.

    Args:
      name: The question's name, used once in a run.
      values: Values that JSON can hold, by their names.

    Raises:
      UserError: On all processes, with the first name whose values differ.
    """
    if _connection is None:
        return
    every = [json.loads(text) for text in _connection.gather(name, json.dumps(values))]
    for field in sorted({field for values in every for field in values}):
        for process, values in enumerate(every):
            if values.get(field) != every[0].get(field):
                raise UserError(
                    f"{field}: expected the same on all processes, process 0 has "
                    f"{every[0].get(field)}, process {process} {values.get(field)}"
                )


def broadcast_json(name: str, value: Callable[[], Any]) -> Any:
    """Returns process 0's value on every process.

    Args:
      name: The value's name, used once in a run.
      value: Makes the value, which JSON must be able to hold. Only process 0 calls it.
    """
    if _connection is None:
        return value()
    key = f"jaxnets/{name}"
    if not is_first():
        return json.loads(_connection.client.blocking_key_value_get(key, FOREVER))
    found = value()
    _connection.client.key_value_set(key, json.dumps(found))
    return found


def broadcast_arrays(tree: Any, like: Any) -> Any:
    """Returns process 0's tree of NumPy arrays on every process, bit for bit.

    Args:
      tree: Process 0's tree; the other processes may pass anything.
      like: Arrays with the tree's structure, shapes and dtypes.
    """
    if _connection is None:
        return tree
    from jax.experimental import multihost_utils

    def broadcast(array: Any, like: Any) -> np.ndarray:
        # As bytes: without 64 bits JAX would round, and it adds zeros: -0 + 0 is 0.
        sent = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        received = np.asarray(multihost_utils.broadcast_one_to_all(sent))
        return received.view(like.dtype).reshape(like.shape)

    like = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf), leaf.dtype), like)
    return jax.tree.map(broadcast, tree if is_first() else like, like)


def synchronised_stop(stop: Callable[[], int]) -> Callable[[], int]:
    """Makes all processes stop before the same step when one of them has had a signal.

    Args:
      stop: Returns the number of the signal that this process has had, or 0.

    Returns:
      A function that returns the same on all processes, if all call it before every step.
    """
    return stop if _connection is None else _connection.synchronised_stop(stop)
