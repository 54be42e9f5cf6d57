"""The training step as XLA compiles it for a TPU and GPUs that this machine does not have.

    bash .ci/compilers                              installs the compilers, compiles CASES
    bash .ci/compilers h100:2 cnn_bn auto bfloat16  a machine, network, gradients and precision

Nothing runs. Each device adds up once a step: one all-reduce, three more for each batch norm, and
no other collective. It holds the state and its rows of the batch, reuses the memory of the whole
state, and does not take more than it has. Each convolution that a layer asks for is one on the
matrix unit of a TPU, and one of cuDNN on a GPU. By hand a TPU moves at most 1.03 of the bytes that
it moves with jax.grad. If this is not so, the script ends with status 1.
"""

import collections
import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

# What libtpu would otherwise ask the cloud for.
os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4"}
os.environ |= {"TPU_WORKER_HOSTNAMES": "localhost"}

import jax
import numpy as np
from jax.experimental import topologies

import jaxnets
from jaxnets.data.arrays import from_arrays
from jaxnets.experiment import Experiment
from jaxnets.machine.platform import Devices, set_up_jax
from jaxnets.models.batch_norm import BatchNorm
from jaxnets.models.chain import Chain, chains_of
from jaxnets.training import loop

CASES = (
    ("v5e:2x2", "mlp", "auto", "float32"),
    ("v5e:2x2", "cnn", "auto", "bfloat16"),
    ("v5e:2x2", "cnn", "manual", "bfloat16"),
    ("h100:2", "cnn", "auto", "float32"),
    ("h100:2", "cnn", "manual", "bfloat16"),
)
BATCH = 128
# The bytes of a device: cloud.google.com/tpu/docs/v5e and /v6e, NVIDIA's card of 80 GB.
MEMORY = {"v5e": 16 * 2**30, "v6e": 32 * 2**30, "h100": 84_929_347_584}
# The card as XLA's GpuTargetConfig (xla/stream_executor/device_description.proto).
H100 = Path(__file__).with_name("h100.txtpb")

# An instruction of HLO that moves data between devices.
COLLECTIVE = re.compile(
    r"= .*?\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)
# A layer's convolution. On a TPU the products of dense layers are convolutions, too.
CONVOLUTION = re.compile(
    r' (?:convolution\(|custom-call\(.*"__cudnn\$conv).*op_name="[^"]*conv_general_dilated'
)
CUDNN = re.compile(r'custom_call_target="__cudnn\$conv')
# The mean, the variance about it, and in the backward pass both gradients.
REDUCES_OF_A_NORM = 3
# The largest share of the bytes with jax.grad that a step by hand may move.
MOVED = 1.03


class Program(NamedTuple):
    """What XLA says about a compiled step, for each device."""

    collectives: dict[str, int]
    asked: int  # Convolutions in the program that XLA is given,
    made: int  # and in the one that it makes.
    by_cudnn: int
    donated: int  # Arrays whose memory a result takes.
    arguments: int  # Bytes of the state and of the batch.
    total: int  # Bytes of all that the program holds.
    moved: int  # Bytes that its instructions read and write, as XLA counts them; 0 for a GPU.


def find_devices(machine: str, precision: str) -> Devices:
    """The devices of a machine such as "v5e:2x2" or "h100:2"; this process runs on the CPU."""
    kind, _, size = machine.partition(":")
    set_up_jax(precision=precision, platform="cpu")
    # JAX cannot read from its cache what was compiled for devices elsewhere.
    jax.config.update("jax_enable_compilation_cache", False)
    if kind == "h100":
        options: dict[str, Any] = dict(target_config=H100.read_text(), topology=f"1x1x{size}")
        return topologies.get_topology_desc("", "cuda", **options).devices
    bounds = (*map(int, size.split("x")), 1)
    return topologies.get_topology_desc(machine, "tpu", chips_per_host_bounds=bounds).devices


def compile_step(experiment: Experiment) -> Program:
    """Compiles an experiment's training step with its placement."""
    parallel = experiment.parallel
    everywhere = jax.NamedSharding(jax.sharding.Mesh(np.array(parallel.devices), "d"), jax.P())
    state = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
        experiment.state_shapes(),
    )
    batch = next(experiment.loader.batches(0, 1, slice(0, BATCH)))
    step: Any = loop.compile_step(experiment.train_step(), parallel)
    lowered = step.lower(state, parallel.split(batch))
    gpu = parallel.platform == "gpu"  # Autotuning would run the candidates on a card.
    compiled = lowered.compile({"xla_gpu_autotune_level": 0} if gpu else None)
    text, memory = compiled.as_text(), compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    held += memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    return Program(
        collectives=dict(collections.Counter(COLLECTIVE.findall(text))),
        asked=len(CONVOLUTION.findall(lowered.as_text("hlo", debug_info=True))),
        made=len(CONVOLUTION.findall(text)),
        by_cudnn=len(CUDNN.findall(text)),
        donated=text.partition("\n")[0].count("-alias)"),
        arguments=memory.argument_size_in_bytes,
        total=held - memory.alias_size_in_bytes,
        moved=int((compiled.cost_analysis() or {}).get("bytes accessed", 0)),
    )


def count_norms(chain: Chain) -> int:
    """The number of batch norms of a network, including those in its blocks."""
    inner = [count_norms(c) for layer in chain.layers for c in chains_of(layer).values()]
    return sum(isinstance(layer, BatchNorm) for layer in chain.layers) + sum(inner)


def faults(program: Program, experiment: Experiment, kind: str) -> list[str]:
    """The faults of a compiled step."""
    gpu, state = kind == "h100", jax.tree.leaves(experiment.state_shapes())
    reduces = 1 + REDUCES_OF_A_NORM * count_norms(experiment.model)
    rows = BATCH // len(experiment.parallel.devices)
    held = sum(x.size * (8 if "key" in str(x.dtype) else x.dtype.itemsize) for x in state)
    held += rows * (28 * 28 + 4 + 4)  # Each with its label and its mask.
    wrong = {
        f"expected {reduces} all-reduce": program.collectives != {"all-reduce": reduces},
        f"expected {len(state)} donated arrays": program.donated != len(state),
        # A TPU pads arrays to whole tiles.
        f"expected {held} bytes of arguments": program.arguments < held
        or (gpu and program.arguments > held),
        f"expected at most {MEMORY[kind]} bytes": program.total > MEMORY[kind],
        "expected each convolution once": program.made != program.asked,
        "expected cuDNN's convolutions": gpu and program.by_cudnn != program.asked,
    }
    return [fault for fault, is_so in wrong.items() if is_so]


def main(cases: list[tuple[str, str, str, str]]) -> int:
    """Compiles each case and prints a line of it; returns the number of those with faults."""
    failed, moved = 0, {}
    data = from_arrays((np.zeros((2 * BATCH, 28, 28), np.uint8), np.arange(2 * BATCH) % 10))
    for machine, model, gradients, precision in cases:
        config = jaxnets.preset(model, batch_size=BATCH, gradients=gradients, precision=precision)
        experiment = Experiment.create(config, data, find_devices(machine, precision))
        program = compile_step(experiment)
        found = faults(program, experiment, machine.partition(":")[0])
        moved[machine, model, precision, gradients] = program.moved
        by_autodiff = moved.get((machine, model, precision, "auto"), program.moved)
        if program.moved > MOVED * by_autodiff:
            found.append(f"expected at most {MOVED} of the {by_autodiff} bytes with jax.grad")
        print(f"{machine} {model} {gradients} {precision}: {program}", *found, sep="\n  ")
        failed += bool(found)
    return failed


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(min(1, main([(words[0], words[1], words[2], words[3])] if words else list(CASES))))
