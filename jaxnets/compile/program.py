"""Compiles an experiment's own step and epoch loop, and reads what XLA made of them."""

import collections
import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from flax.traverse_util import flatten_dict

from jaxnets.data.batches import Batch
from jaxnets.errors import OUT_OF_MEMORY, UserError, first_line
from jaxnets.experiment import Experiment
from jaxnets.training import loop, scan
from jaxnets.trees import Params

# An instruction of HLO that moves data between devices.
COLLECTIVE = re.compile(
    r"= .*?\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)
HEAD = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")  # The first line of a computation.
LOOP = re.compile(r"\bwhile\(.*\bbody=%?([\w.-]+)")
WORD = re.compile(r"[\w.-]+")
# An instruction with its type, its opcode and the operation of the program that it stands for.
INSTRUCTION = re.compile(r' = \(?([a-z]\w*\[[\d,]*\]).*? ([a-z][\w-]*)\(.*op_name="([^"]+)"')
CUDNN = re.compile(r'custom_call_target="__(cudnn\$\w+)"')
# Parts of an operation's name that are no layer's.
FRAMES = re.compile(r".*\(.*|shard_map|while|body|closed_call|backward|conv_general_dilated")

Collectives = dict[str, int]


class Memory(NamedTuple):
    """The bytes that a program takes on a device."""

    arguments: int
    results: int
    donated: int  # Results that take the place of arguments.
    temporary: int
    code: int

    @property
    def total(self) -> int:
        return self.arguments + self.results - self.donated + self.temporary + self.code


class Convolution(NamedTuple):
    """A layer's convolutions in one direction: how many were asked for, and what they are now."""

    name: str  # As "conv1 forward".
    asked: int
    made: tuple[str, ...]


class Program(NamedTuple):
    """What XLA says about a compiled function, for each device."""

    collectives: Collectives  # Outside loops.
    in_loops: Collectives  # In a loop, each time.
    flops: float | None
    bytes: float | None
    memory: Memory
    donated: int  # Arrays whose memory a result takes,
    state: int  # of so many in the state.
    convolutions: list[Convolution]


class TooLargeError(Exception):
    """XLA finds that a program does not fit into the device's memory; the message says why."""


def compile_step(experiment: Experiment) -> Program:
    """The training step."""
    parallel = experiment.parallel
    step: Any = loop.compile_step(experiment.train_step(), parallel)
    state = parallel.replicated_shapes(experiment.state_shapes())
    return _compiled(step.lower(state, parallel.split_shapes(_first_batch(experiment))), experiment)


def compile_epoch(experiment: Experiment) -> Program | None:
    """The epoch's loop; None where the host dispatches the steps."""
    if not experiment.scans:
        return None
    loader, parallel = experiment.loader, experiment.parallel
    epoch: Any = scan.compile_scan(experiment.train_step(), parallel)
    images, labels = loader.split.images, loader.split.labels
    whole = parallel.replicated_shapes((experiment.state_shapes(), images, labels))
    rows = scan.rows_at_once(scan.rows_of_epoch(loader, 0), loader, parallel, 0)
    return _compiled(epoch.lower(*whole, parallel.split_shapes(rows, axis=1)), experiment)


def flops_asked(experiment: Experiment) -> float:
    """A device's share of a step's FLOPs, counted before XLA optimizes it.

    This machine's CPU counts them; the layers are those of the machine to compile for.
    """
    count = len(experiment.parallel.devices)
    config = dataclasses.replace(experiment.config, parallel="jit")
    one = Experiment.create(config, experiment.data, experiment.parallel.devices[:1])
    share = jax.tree.map(lambda x: x[: one.loader.batch_size // count], _first_batch(one))
    lowered = jax.jit(one.train_step()).lower(one.state_shapes(), share)
    return (lowered.cost_analysis() or {})["flops"]


def _first_batch(experiment: Experiment) -> Batch:
    rows = experiment.parallel.rows(experiment.loader.batch_size)
    return next(experiment.loader.batches(0, 1, rows))


def _compiled(lowered: Any, experiment: Experiment) -> Program:
    """Compiles, and reads the program.

    Raises:
      TooLargeError: The program does not fit.
    """
    gpu = experiment.parallel.platform == "gpu"
    try:
        with _not_kept():  # Autotuning would run the candidates on a card.
            compiled = lowered.compile({"xla_gpu_autotune_level": 0} if gpu else None)
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY in str(error):
            message = first_line(error).removeprefix(f"{OUT_OF_MEMORY}: ")
            raise TooLargeError(message) from error
        raise UserError(f"XLA cannot compile it: {first_line(error)}") from error
    text, memory = compiled.as_text(), compiled.memory_analysis()
    state = experiment.state_shapes()
    cost = compiled.cost_analysis() or {}  # None for a GPU that is not there.
    aliases = text.partition("\n")[0].count("-alias)")
    inside, outside = _collectives(text)
    return Program(
        collectives=outside,
        in_loops=inside,
        flops=cost.get("flops"),
        bytes=cost.get("bytes accessed"),
        memory=Memory(
            memory.argument_size_in_bytes,
            memory.output_size_in_bytes,
            memory.alias_size_in_bytes,
            memory.temp_size_in_bytes,
            memory.generated_code_size_in_bytes,
        ),
        donated=aliases,
        state=len(jax.tree.leaves(state)),
        convolutions=_convolutions(lowered.as_text("hlo", debug_info=True), text, state.params),
    )


@contextlib.contextmanager
def _not_kept() -> Iterator[None]:
    """Keeps programs out of JAX's cache, from which it cannot read those of devices elsewhere."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[name]
    jax.config.update(name, math.inf)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _collectives(text: str) -> tuple[Collectives, Collectives]:
    """The collectives in loops and outside, by their names."""
    bodies: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if head := HEAD.match(line):
            lines = bodies.setdefault(head[1], [])
        lines.append(line)
    looped = {match[1] for match in LOOP.finditer(text)}
    waiting = list(looped)
    while waiting:  # What a loop's computation calls is in the loop, too.
        called = {word for line in bodies[waiting.pop()] for word in WORD.findall(line)}
        new = (called & bodies.keys()) - looped
        looped |= new
        waiting += new
    found: tuple[Collectives, Collectives] = ({}, {})
    for name, body in bodies.items():
        place = found[name not in looped]
        for kind in COLLECTIVE.findall("\n".join(body)):
            place[kind] = place.get(kind, 0) + 1
    return found


def _convolutions(asked: str, made: str, params: Params) -> list[Convolution]:
    """The convolutions of a program as it was asked for and as it was compiled, layer by layer.

    Those with parameters of which the program has none stand there, too: a kernel's products.
    """
    wanted = collections.Counter(
        _place(name) for _, opcode, name in INSTRUCTION.findall(asked) if opcode == "convolution"
    )
    found: dict[str, list[str]] = {place: [] for place in wanted}
    for line in made.splitlines():
        match, cudnn = INSTRUCTION.search(line), CUDNN.search(line)
        if match and (cudnn or match[2] == "convolution") and _place(match[3]) in found:
            found[_place(match[3])].append(f"{cudnn[1] if cudnn else match[2]} {match[1]}")
    arrays: Any = flatten_dict(params)
    kernels = {path[-2] for path, leaf in arrays.items() if leaf.ndim == 4}
    named = {part for place in found for part in WORD.findall(place)}
    found |= {layer: [] for layer in sorted(kernels - named)}
    return [Convolution(place, wanted[place], tuple(forms)) for place, forms in found.items()]


def _place(name: str) -> str:
    """A layer and a direction, as "conv1 forward", from an operation's name."""
    parts = name.split("/")
    layer = "/".join(part for part in parts if not FRAMES.fullmatch(part))
    backward = "transpose(" in name or "backward" in parts
    return f"{layer} {'backward' if backward else 'forward'}".strip()
