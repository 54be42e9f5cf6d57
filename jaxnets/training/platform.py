"""Sets JAX up for the machine: devices, precision, compilation cache, and a CPU's two traps."""

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Any

import jax

from jaxnets.errors import UserError

Devices = list[Any]  # Of jax.Device, which type checkers do not take for a type.


def prepare(devices: int | None = None, precision: str = "float32") -> Devices:
    """Sets JAX up and returns the devices to train on. Call it before JAX touches a device.

    Args:
      devices: How many; None takes all accelerators, or one CPU. A CPU counts as N devices.
      precision: "float64" switches JAX to 64 bits.

    Raises:
      UserError: There are fewer devices.
    """
    if precision == "float64":
        jax.config.update("jax_enable_x64", True)
    _keep_compiled_programs()
    if devices is not None:
        with contextlib.suppress(RuntimeError):  # Raised where JAX runs already: a notebook.
            jax.config.update("jax_num_cpu_devices", devices)
    found = jax.devices()
    if devices is not None and devices > len(found):
        raise UserError(
            f"devices: expected at most {len(found)} ({describe(found)}), got {devices}"
        )
    if found[0].platform == "cpu":
        _keep_freed_memory()
    return found[: devices or 1] if found[0].platform == "cpu" else found[:devices]


def describe(devices: Devices) -> str:
    """The devices in a few words, as "CPU, 2 cores" or "8 x TPU v5 lite"."""
    if devices[0].platform == "cpu":
        cores = f"CPU, {os.cpu_count()} cores"
        return cores if len(devices) == 1 else f"{cores} as {len(devices)} devices"
    count = "" if len(devices) == 1 else f"{len(devices)} x "
    return f"{count}{devices[0].device_kind}"


def compiler_options() -> dict[str, Any] | None:
    """Options for jax.jit on this machine.

    From 0.10 on, jaxlib compiles some of a CPU's convolutions and matrix products with a library
    (YNNPACK) that is slower there than its own. Limited to sums, the CNN's step takes 0.7 of the
    time (jaxlib 0.10.2 and 0.12.0; benchmarks/step.py). Earlier versions do not know the option,
    later ones than those tested are left alone.
    """
    version = tuple(int(part) for part in jax.__version__.split(".")[:2])
    if jax.default_backend() == "cpu" and (0, 10) <= version <= (0, 12):
        return {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
    return None


def _keep_compiled_programs() -> None:
    """Keeps compiled programs from one process to the next, the small ones too.

    The CNN starts in 1.5 s instead of 5 s. JAX_COMPILATION_CACHE_DIR chooses another folder.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base) / "jaxnets"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        if not os.access(folder, os.W_OK):
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _keep_freed_memory() -> None:
    """Tells glibc to keep freed memory for the next step instead of returning it to the kernel.

    A step's temporary arrays are tens of megabytes. By default each is mapped anew and cleared
    page by page. That took a third of the CNN's step on an AMD EPYC, 0 to 5 % on an Intel Xeon
    (jaxlib 0.10.2; benchmarks/step.py). Elsewhere than in glibc there is no mallopt, and nothing
    is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, -1)
