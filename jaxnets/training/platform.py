"""Sets JAX up for the machine: devices, precision, compilation cache, and a CPU's two traps."""

import contextlib
import ctypes
import functools
import os
from pathlib import Path
from typing import Any

import jax

from jaxnets.errors import UserError

HUGE_PAGE = 1 << 21

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
    _keep_freed_memory()
    found = jax.devices()
    if devices is not None and devices > len(found):
        raise UserError(
            f"devices: expected at most {len(found)} ({describe(found)}), got {devices}"
        )
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


@functools.cache
def _keep_freed_memory() -> None:
    """Tells glibc to keep freed memory for the next step, and Linux to lay it out in huge pages.

    A step's temporary arrays are tens of megabytes, of AlexNet at 224 pixels a gigabyte. By default
    each is mapped anew and cleared page by page, and where it is read in strides, pages of 4 KB
    are looked up again and again. Kept in one heap of 2 MB pages, AlexNet's step takes 0.91 of the
    time (jaxlib 0.10.2, Intel Xeon; benchmarks/step.py); the CNN's takes 0.95 to 1.0, on an AMD
    EPYC 0.7. It must come before JAX starts its threads, which would get heaps of their own.
    Elsewhere than in glibc there is no mallopt, and nothing is done.
    """
    libc: Any = ctypes.CDLL(None) if os.name == "posix" else None
    if not hasattr(libc, "mallopt"):
        return
    m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8  # malloc.h
    libc.mallopt(m_arena_max, 1)
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, -1)
    # The heap is made to grow once, and the address space it grew by, none of it touched, advised.
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
    start = libc.sbrk(0)
    libc.free(ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size))))
    first = -(-start // HUGE_PAGE) * HUGE_PAGE
    if (length := libc.sbrk(0) - first) > 0:  # Else the system granted no such address space.
        madv_hugepage = 14  # sys/mman.h
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), madv_hugepage)
