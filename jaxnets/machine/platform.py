"""Sets JAX up for the machine: devices, precision, compilation cache, and a CPU's two traps."""

import contextlib
import ctypes
import functools
import importlib.metadata
import os
import platform as python_platform
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax._src.distributed import global_state

from jaxnets.base.errors import UserError
from jaxnets.base.language import N_, Text
from jaxnets.base.system import cache_folder, num_cores
from jaxnets.base.version import __version__

# The advice where JAX does not find the accelerator.
ACCELERATORS = {
    "gpu": N_('for one of NVIDIA\'s: pip install "jax[cuda13]"'),
    "tpu": N_('for one: pip install "jax[tpu]"'),
}
# What `describe` says.
CORE, CORES, SIMULATED = N_("CPU, 1 core"), N_("CPU, {} cores"), N_("{} as {} devices")

Devices = list[Any]  # A list of jax.Device, which type checkers do not accept as a type.


class Processes:
    """The exchange of values between a run's processes: here there is only one."""

    is_first = True
    signals = (signal.SIGINT, signal.SIGTERM)  # Those that stop a training, except SIGHUP.

    def assert_equal(self, values: dict[str, Any]) -> None:
        pass

    def broadcast_json(self, value: Callable[[], Any]) -> Any:
        return value()

    def broadcast_arrays(self, tree: Any, like: Any) -> Any:
        return tree

    def synchronised_stop(self, stop: Callable[[], int]) -> Callable[[], int]:
        return stop


def set_up_jax(
    devices: int | None = None,
    precision: str = "float32",
    *,
    platform: str | None = None,
    cpu_devices: int | None = None,
    connected: bool = False,
    keep_memory: bool = True,
) -> Devices:
    """Sets JAX up, before it touches a device, and returns the devices to train on.

    A second call with the same arguments changes nothing and returns the same devices.

    Args:
      devices: The number of devices, shared equally by the processes. None takes all devices, but
        only one of a CPU's unless they are simulated. A CPU counts as that many devices.
      precision: "float64" switches JAX to 64 bits.
      platform: "cpu", "gpu" or "tpu"; None takes what JAX finds.
      cpu_devices: How many devices the CPU simulates in each process, instead of any accelerator.
      connected: Whether to return the devices of all connected processes instead of this one's.
      keep_memory: Whether freed memory is kept for the next step instead of other programs.
    """
    if cpu_devices is not None:
        platform = "cpu"
    if platform == "cpu":  # Asked for another platform, JAX fails with many lines: see `_found`.
        jax.config.update("jax_platforms", "cpu")
    if precision == "float64":
        jax.config.update("jax_enable_x64", True)
    # A CPU computes in the thread that asks for it: no other thread must wake up, and the main
    # thread's heap keeps the memory of a step. A JAX that runs already stays as it is.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    _keep_compiled_programs()
    # JAX's public process_count would start its devices.
    processes = (global_state.num_processes or 1) if connected else 1
    # Devices of this process, rounded up.
    if (count := cpu_devices or (devices and -(-devices // processes))) is not None:
        with contextlib.suppress(RuntimeError):  # Raised where JAX runs already: a notebook.
            jax.config.update("jax_num_cpu_devices", count)
    if keep_memory:
        _keep_freed_memory()
    found = _found(platform)
    if cpu_devices is not None:
        found = _simulated(found, cpu_devices)
    if devices is not None:
        _check_count(devices, found, processes, connected)
    default = (cpu_devices or 1) if found[0].platform == "cpu" else len(found)
    per_process = devices // processes if devices else default
    if not connected:
        return found[:per_process]
    return devices_of_all_processes(per_process)


def _simulated(found: Devices, count: int) -> Devices:
    """So many devices of a CPU; UserError if JAX has started with fewer."""
    if count > len(found):
        raise UserError(
            "cpu_devices: expected {}, but this Python has started JAX with {}; restart it",
            count,
            len(found),
        )
    return found[:count]


def _check_count(devices: int, found: Devices, processes: int, connected: bool) -> None:
    """Raises UserError unless each process has its equal share of so many devices."""
    if devices > len(found) * processes:
        raise UserError(
            "devices: expected at most {} ({}{}), got {}",
            len(found) * processes,
            describe_devices(found),
            Text(" in each of {} processes", processes) if connected else "",
            devices,
        )
    if devices % processes:
        raise UserError(
            "devices: expected a multiple of the {} processes, got {}", processes, devices
        )


def devices_of_all_processes(per_process: int) -> Devices:
    """The first devices of each process, in the order of processes; all must have as many."""
    owned = [
        sorted((d for d in jax.devices() if d.process_index == process), key=lambda d: d.id)
        for process in range(jax.process_count())
    ]
    for process, theirs in enumerate(owned):
        if len(theirs) != len(owned[0]):
            raise UserError(
                "devices: expected equally many in each process, process 0 has {}, process {} {}",
                len(owned[0]),
                process,
                len(theirs),
            )
    return [device for theirs in owned for device in theirs[:per_process]]


def _found(platform: str | None) -> Devices:
    """The devices that JAX finds for this process, all of one platform."""
    try:
        found = jax.local_devices()
    except RuntimeError as error:  # JAX_PLATFORMS names one that is not here.
        raise UserError("platform: JAX finds no device: {}", error) from error
    if platform in (None, found[0].platform):
        return found
    allowed = jax.config.values["jax_platforms"]
    if platform == "cpu":
        hint = Text("this Python has already started JAX: restart it")
    elif allowed:
        hint = Text("JAX_PLATFORMS={} keeps it from looking further", allowed)
    else:
        hint = Text("{}; in Colab choose a runtime with one", Text(ACCELERATORS[platform]))
    raise UserError(
        "platform: expected {}, JAX has only {}; {}", platform, describe_devices(found), hint
    )


def versions() -> dict[str, str]:
    """The versions of everything that the numbers depend on."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"jaxnets": __version__, "python": python_platform.python_version(), **found}


def surroundings(devices: Devices) -> dict[str, Any]:
    """What besides the config may change a result's last bits, by the names in config.json.

    An accelerator's numbers do not depend on the host's cores.
    """
    on_cpu = devices[0].platform == "cpu"
    return {
        "versions": versions(),
        "device_platform": devices[0].platform,
        "device": str(describe_devices(devices)),
        "num_devices": len(devices),
        "processor": cpu_name() if on_cpu else devices[0].device_kind,
        "cores": num_cores() if on_cpu else None,
    }


def describe_devices(devices: Devices) -> Text:
    """The devices in a few words: "CPU, 2 cores" or "8 x TPU v5 lite"."""
    if devices[0].platform == "cpu":
        cores = Text(CORE) if (count := num_cores()) == 1 else Text(CORES, count)
        return cores if len(devices) == 1 else Text(SIMULATED, cores, len(devices))
    count = "" if len(devices) == 1 else f"{len(devices)} x "
    return Text("{}{}", count, devices[0].device_kind)


def cpu_name() -> str:
    """The CPU's name as in "AMD EPYC, cpu family 26, model 2, x86_64"."""
    machine = python_platform.machine()
    try:
        first = Path("/proc/cpuinfo").read_text("utf-8", "replace").partition("\n\n")[0]
    except OSError:  # It is not Linux.
        return f"{python_platform.processor()}, {machine}"
    found = dict(re.findall(r"^([^\t:]+)\t*: (.+)$", first, re.MULTILINE))
    # A virtual machine may name several generations alike; those of ARM have numbers only.
    numbers = ("cpu family", "model", "CPU implementer", "CPU part")
    parts = [found.get("model name"), *(f"{n} {found[n]}" for n in numbers if n in found), machine]
    return ", ".join(filter(None, parts))


# Up to jaxlib 0.11.0 an older emitter of kernels compiles them in a fifth to two thirds of the CPU
# time. They run as fast (benchmarks/step.py), but random numbers take twice as long to draw.
OLDER_EMITTER = {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11, 1) else {}
# How many arrays a kernel stacks at a time. The later emitter stacks up to eight in the loop that
# computes them, and compiles 16 loops for 16: by fours, the CNN's step compiles in 0.8 of the time.
# The older one's loop for four is slow: a convolution and its pool take 1.03 to 1.09 of the time.
STACKED = 16 if OLDER_EMITTER else 4


def default_platform() -> str:
    """The kind of device that JAX takes if none is chosen: "cpu", "gpu" or "tpu"."""
    return jax.default_backend()


def compiler_options(platform: str) -> dict[str, Any] | None:
    """Options for jax.jit on a platform.

    From 0.10 on, jaxlib compiles some of a CPU's convolutions and matrix products with a library
    (YNNPACK) that is slower there than its own. Limited to sums, the CNN's step takes 0.7 of the
    time (0.10.2, 0.12.0; benchmarks/step.py). Other versions lack the option or are untested.
    """
    if platform == "cpu" and (0, 10) <= jax.__version_info__[:2] <= (0, 12):
        return {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
    return None


def compiler_options_for_step(convolutions: bool, platform: str) -> dict[str, Any] | None:
    """Options for jax.jit of a step, for networks with convolutions or without.

    The library's small products are fast: `mlp_functional` takes 0.8 to 0.9 of the CPU time with
    them. Convolutions run as fast, and compile in a third to half of the time, by OLDER_EMITTER,
    at LLVM's first level, in one module (benchmarks/step.py).
    """
    options = compiler_options(platform) if convolutions else None
    quick = {"xla_backend_optimization_level": 1, "xla_cpu_parallel_codegen_split_count": 1}
    return options and options | OLDER_EMITTER | quick


def compiler_options_for_init(platform: str) -> dict[str, Any] | None:
    """Options for jax.jit of programs that run once: a network's initializers.

    On a CPU LLVM takes 1.5 s to optimize JAX's random numbers, and 0.3 s a level lower with the
    older emitter; the bits are the same (mlp_handwritten, jaxlib 0.10.2, AMD EPYC).
    """
    if platform == "cpu":
        return {"xla_backend_optimization_level": 1} | OLDER_EMITTER
    return None


def _keep_compiled_programs() -> None:
    """Keeps compiled programs for the next process, the small ones too.

    The CNN starts in 1.5 s instead of 5 s. JAX_COMPILATION_CACHE_DIR chooses another folder.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        try:
            folder = cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
        except (UserError, OSError):
            return
        if not os.access(folder, os.W_OK):
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@functools.cache
def _keep_freed_memory() -> None:
    """Tells glibc to keep freed memory for the next step.

    A step's temporary arrays take tens of megabytes to a gigabyte. By default each is mapped anew
    and cleared page by page: the CNN's step then takes twice the time (jaxlib 0.10.2, AMD EPYC).
    Without glibc nothing is set.
    """
    libc: Any = ctypes.CDLL(None) if os.name == "posix" else None
    if not hasattr(libc, "mallopt"):
        return
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, -1)


def return_freed_memory() -> None:
    """Gives back to the system what glibc keeps of freed memory, in holes and in threads' heaps."""
    libc: Any = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
