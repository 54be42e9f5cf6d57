"""The machines for which a training can be compiled: their devices and their memory.

A TPU's compiler is libtpu, a GPU's is CUDA's plugin with a description of the card. Neither needs
the device. docs/compile.md says how to install them.
"""

import importlib.util
import math
import os
from importlib.resources import files
from typing import NamedTuple

import jax

from jaxnets.config.fields import Config
from jaxnets.errors import UserError, first_line, not_installed
from jaxnets.machine.platform import Devices, set_up_jax

GIB = 2**30
# The memory of a chip: cloud.google.com/tpu/docs/v5e and /v6e.
TPU_MEMORY = {"v5e": 16 * GIB, "v6e": 32 * GIB}
TPU_GRIDS = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CHIPS_OF_HOST = 8  # A grid of more chips is that of several hosts, four chips each.
# What libtpu would ask the cloud for, and its lock.
TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # Else a second process is refused, as on a real TPU.
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}

# An H100 with 80 GB, as XLA's GpuTargetConfig (xla/stream_executor/device_description.proto).
H100, H100_MEMORY, MOST_GPUS = "h100.txtpb", 84_929_347_584, 8
CUDA_PACKAGES = (
    "jax-cuda13-plugin=={0} jax-cuda13-pjrt=={0} nvidia-cuda-nvcc nvidia-nvvm nvidia-cuda-crt "
    "nvidia-cuda-runtime nvidia-nvjitlink"
)
MOST_CPUS = 256

NAMES = (
    f"v5e:GRID or v6e:GRID ({', '.join(TPU_GRIDS)}), h100:N (1 to {MOST_GPUS}) or cpu:N "
    f"(1 to {MOST_CPUS})"
)


class Target(NamedTuple):
    """A machine to compile for."""

    name: str
    devices: Devices
    memory: int | None  # Bytes of a device; None for a CPU, whose devices share this machine's.


def find(name: str, config: Config) -> Target:
    """The machine of a name such as "v5e:2x2", for a config's precision.

    Raises:
      UserError: No such machine, or its compiler is not installed.
    """
    kind, _, size = name.lower().partition(":")
    count = int(size) if size.isascii() and size.isdigit() else 0
    if kind == "cpu" and 1 <= count <= MOST_CPUS:
        devices = set_up_jax(config.devices, config.precision, cpu_devices=count)
        return Target(name, devices, None)
    if kind in TPU_MEMORY and size in TPU_GRIDS:
        devices, memory = _tpus(name, size, config), TPU_MEMORY[kind]
    elif kind == "h100" and 1 <= count <= MOST_GPUS:
        devices, memory = _gpus(count, config), H100_MEMORY
    else:
        raise UserError(f"for: expected {NAMES}, got {name or 'none'}")
    if (asked := config.devices or len(devices)) > len(devices):
        raise UserError(f"devices: expected at most {len(devices)} for {name}, got {asked}")
    return Target(name, devices[:asked], memory)


def _tpus(name: str, grid: str, config: Config) -> Devices:
    if importlib.util.find_spec("libtpu") is None:
        raise not_installed("libtpu", "compile")
    for variable, value in TPU_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    bounds = (*map(int, grid.split("x")), 1)
    one_host = {"chips_per_host_bounds": bounds} if math.prod(bounds) <= CHIPS_OF_HOST else {}
    return _topology(config, name, "tpu", **one_host)


def _gpus(count: int, config: Config) -> Devices:
    plugins = importlib.util.find_spec("jax_plugins")
    if plugins is None or importlib.util.find_spec("jax_plugins.xla_cuda13") is None:
        packages = CUDA_PACKAGES.format(jax.__version__)
        raise UserError(f"CUDA's compiler is not installed: pip install --no-deps {packages}")
    card = (files("jaxnets.compile") / H100).read_text()
    return _topology(config, "", "cuda", target_config=card, topology=f"1x1x{count}")


def _topology(config: Config, name: str, platform: str, **options: object) -> Devices:
    """The devices of a topology; this process itself runs on the CPU."""
    from jax.experimental import topologies

    set_up_jax(precision=config.precision, platform="cpu")
    try:
        return list(topologies.get_topology_desc(name, platform, **options).devices)
    except (RuntimeError, NotImplementedError) as error:  # JAX and its plugin do not fit.
        raise UserError(f"JAX cannot compile for {platform}: {first_line(error)}") from error
