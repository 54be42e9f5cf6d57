"""The answer of `jaxnets compile`: a training's programs on a machine that is not there."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from jaxnets.compile import program
from jaxnets.compile.program import Program, TooLargeError
from jaxnets.compile.targets import Target, find
from jaxnets.config.resolve import preset
from jaxnets.display import table
from jaxnets.errors import UserError
from jaxnets.experiment import Experiment
from jaxnets.language import N_, _
from jaxnets.runs.request import load_data, request

MEMORY = (N_("arguments"), N_("results"), N_("donated"), N_("temporary"), N_("code"), N_("total"))


class Compiled(NamedTuple):
    """A training's programs on a machine, or why they do not fit."""

    experiment: Experiment
    target: Target
    flops: float  # Of a step, a device's share, before XLA optimizes it.
    step: Program | None
    epoch: Program | None  # None where the host dispatches the steps.
    too_large: str | None  # What XLA said.

    @property
    def fits(self) -> bool:
        """Whether the programs fit into a device's memory."""
        programs = filter(None, (self.step, self.epoch))
        room = self.target.memory or float("inf")
        return self.too_large is None and all(p.memory.total <= room for p in programs)


def compile_for(name: str, given: Mapping[str, Any]) -> Compiled:
    """Compiles the training that the flags of train.py ask for.

    Raises:
      UserError: No such machine, its compiler is missing, or the request cannot be met.
    """
    target = find(name, preset(**given))
    config, data, _own = request(given, partial(load_data, as_bytes=True))
    experiment = Experiment.create(config, data, target.devices)
    if experiment.parallel.kind == "pmap" and len({d.process_index for d in target.devices}) > 1:
        # Each process compiles a pmap for its own devices, which JAX cannot do for another's.
        raise UserError(f"parallel: expected jit or shard_map for several hosts ({name}), got pmap")
    flops, step, epoch, too_large = program.flops_asked(experiment), None, None, None
    try:
        step = program.compile_step(experiment)
        epoch = program.compile_epoch(experiment)
    except TooLargeError as error:
        too_large = str(error)
    return Compiled(experiment, target, flops, step, epoch, too_large)


def to_values(found: Compiled) -> dict[str, Any]:
    """The same for machines: a step's values, those of the epoch's loop, and what they are of."""
    config, parallel = found.experiment.config, found.experiment.parallel
    return {
        "for": found.target.name,
        "device": parallel.devices[0].device_kind,
        "devices": len(parallel.devices),
        "parallel": parallel.kind,
        **{name: getattr(config, name) for name in ("model", "gradients", "precision")},
        "batch_size": found.experiment.loader.batch_size,
        "device_memory": found.target.memory,
        "fits": found.fits,
        "too_large": found.too_large,
        "flops_asked": found.flops,
        **(_values(found.step) if found.step else {}),
        "epoch": _values(found.epoch) if found.epoch else None,
    }


def _values(made: Program) -> dict[str, Any]:
    together = {**made.collectives, **made.in_loops}
    return {
        "all_reduces": together.get("all-reduce", 0),
        "all_gathers": together.get("all-gather", 0),
        "collectives": made.collectives,
        "collectives_in_loops": made.in_loops,
        "flops": made.flops,
        "bytes": made.bytes,
        "memory": {**made.memory._asdict(), "total": made.memory.total},
        "donated_arrays": made.donated,
        "state_arrays": made.state,
        "convolutions": [c._asdict() for c in made.convolutions],
    }


def to_text(found: Compiled) -> str:
    """Two columns, the step and the epoch's loop; then each convolution."""
    config, parallel = found.experiment.config, found.experiment.parallel
    devices, loader = parallel.devices, found.experiment.loader
    title = _(
        "{} for {}: {} x {}; {}, {} images a step, gradients {}, {}",
        *(config.model, found.target.name, len(devices), devices[0].device_kind, parallel.kind),
        *(loader.batch_size, config.gradients, config.precision),
    )
    programs = {_("a step"): found.step, _("the epoch's loop"): found.epoch}
    made = {name: p for name, p in programs.items() if p}
    rows = [[_("for each device"), *made]]
    rows.append([_("collectives"), *map(_collectives, made.values())])
    rows.append(["FLOPs", *(_number(p.flops) for p in made.values())])
    rows.append([_("bytes read and written"), *(_number(p.bytes, "B") for p in made.values())])
    for name in MEMORY:
        values = [getattr(p.memory, name) for p in made.values()]
        rows.append([_("memory: {}", _(name)), *(_number(value, "B") for value in values)])
    donated = [_("{} of {}", p.donated, p.state) for p in made.values()]
    rows.append([_("donated arrays"), *donated])
    lines = [title, "", *table(rows, "<" + ">" * len(made))] if made else [title]
    lines += ["", _("FLOPs before XLA optimizes: {} a step", _number(found.flops))]
    if found.step and found.step.convolutions:
        named = [(c.name, _forms(c)) for c in found.step.convolutions]
        lines += ["", *table([(_("convolution"), _("compiled to")), *named], "<<")]
    if found.step and not found.epoch and not found.too_large:
        lines += ["", _("The host dispatches the steps: the epoch is no compiled loop.")]
    return "\n".join([*lines, "", _verdict(found)])


def _collectives(made: Program) -> str:
    """As "1 all-reduce", or as "1 all-reduce a step; 2 all-reduce in all"."""

    def text(kinds: program.Collectives) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))

    if not made.in_loops:
        return text(made.collectives) or _("none")
    in_loops = _("{} a step", text(made.in_loops))
    return in_loops + (_("; {} in all", text(made.collectives)) if made.collectives else "")


def _forms(convolution: program.Convolution) -> str:
    if not convolution.asked:
        return _("products, by a kernel of jaxnets")
    return ", ".join(convolution.made) or _("no convolution: other operations")


def _number(value: float | None, unit: str = "") -> str:
    """As "1.23 GB"; "unknown" where the compiler does not say."""
    if value is None:
        return _("unknown")
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:g} {unit}".rstrip()


def _verdict(found: Compiled) -> str:
    if found.too_large:
        return _("It does not fit: {}", found.too_large)
    if found.target.memory is None:
        return _("Its devices share this machine's memory.")
    largest = max(p.memory.total for p in (found.step, found.epoch) if p)
    size = _number(found.target.memory, "B")
    share = _("{} of {}", f"{largest / found.target.memory:.2%}", size)
    return _("It fits: {}", share) if found.fits else _("It does not fit: {}", share)
