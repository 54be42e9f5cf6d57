"""What JAX finds and keeps: simulated devices, missing platforms, compiler options, memory."""

import os
import sys
from typing import Any

import jax
import pytest
from conftest import slow

from jaxnets.base.errors import UserError
from jaxnets.gradcheck.quick import QUICK_COMPILATION
from jaxnets.machine.platform import (
    compiler_options,
    compiler_options_for_init,
    compiler_options_for_step,
    set_up_jax,
)

COUNTS = """
import jax
from jaxnets.cli.flags import parse_flags
from jaxnets.config.resolve import preset
from jaxnets.experiment import find_devices
used = find_devices(preset(**parse_flags(sys.argv[1:])))
print(len(jax.devices()), len(used))
"""


FAULTS = """
import concurrent.futures, resource
import jax
from jaxnets.machine.platform import set_up_jax
readers = concurrent.futures.ThreadPoolExecutor(4)  # Each has a heap of its own.
assert sum(map(len, readers.map(bytes, 100 * [10_000]))) == 1_000_000
set_up_jax()
step = jax.jit(lambda x: x + 1)
x, faults = jax.numpy.zeros(2**25), []
for _ in range(10):
    jax.block_until_ready(step(x))
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[2])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc keeps freed memory")
def test_a_step_takes_the_memory_of_the_one_before(run_python):
    """An array of 128 MB has 32,768 pages; mapped anew, each is a page fault in each step."""
    status, output, _ = run_python("-c", FAULTS)
    assert status == 0 and int(output) < 32_768


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "count", "used"),
    [
        slow([], 1, 1),
        slow(["--devices=3"], 3, 3),
        slow(["--cpu_devices=8"], 8, 8),
        (["--cpu_devices=8", "--devices=2"], 8, 2),
        slow(["--platform=cpu"], 1, 1),
    ],
    ids=str,
)
def test_a_fresh_python_simulates_the_devices_asked_for(run_python, flags, count, used):
    outcome = run_python("-c", f"import sys{COUNTS}", *flags)
    assert outcome == (0, f"{count} {used}\n", "")


def test_a_second_preparation_changes_nothing():
    first, before = set_up_jax(2), dict(jax.config.values)
    assert set_up_jax(2) == first
    assert jax.config.values == before


def test_without_a_home_folder_compiled_programs_are_not_kept(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        set_up_jax()
        assert jax.config.values["jax_compilation_cache_dir"] is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.slow
@pytest.mark.parametrize("name", [slow("tpu"), "nonsense"])
def test_platforms_that_jax_cannot_start_are_named_in_a_line(run_python, name):
    outcome = run_python("-m", "jaxnets", "summary", env={**os.environ, "JAX_PLATFORMS": name})
    outcome.assert_refused("platform: JAX finds no device: ", name)


@pytest.mark.slow
def test_without_an_accelerator_the_refusal_says_what_to_install(run_python):
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    outcome = run_python("-m", "jaxnets", "lr_find", "--platform=tpu", env=environment)
    if outcome.status == 0:
        pytest.skip("this machine has a TPU")
    assert outcome.status == 2 and "Traceback" not in outcome.err
    assert 'pip install "jax[tpu]"' in outcome.err.splitlines()[-1]


def test_simulated_devices_are_the_cpus_beside_an_accelerator_too(monkeypatch):
    accelerator = type("Device", (), {"platform": "gpu", "device_kind": "H100"})()
    monkeypatch.setattr(jax, "local_devices", lambda: [accelerator] * 2)
    assert len(set_up_jax()) == len(set_up_jax(platform="gpu")) == 2
    restart = r"expected cpu, JAX has only 2 x H100; .*restart"
    requests: Any = [
        ({"cpu_devices": 2}, restart),
        ({"platform": "cpu"}, restart),
        ({"devices": 3}, r"devices: expected at most 2 \(2 x H100\), got 3"),
        ({"platform": "tpu"}, "platform: expected tpu, JAX has only 2 x H100"),
    ]
    for request, refused in requests:
        with pytest.raises(UserError, match=refused):
            set_up_jax(**request)


@pytest.mark.parametrize(
    "options",
    [
        compiler_options("cpu"),
        compiler_options_for_step(True, "cpu"),
        compiler_options_for_init("cpu"),
        QUICK_COMPILATION,
    ],
    ids=["shared", "step", "init", "quick"],
)
def test_this_jaxlib_has_each_option_of_the_compiler(options):
    for name, value in (options or {}).items():
        jax.jit(lambda x: -x, compiler_options={name: value})(1.0)  # Else the error names it.
