"""A network layer by layer, as a table or a picture: output shape, parameters, arithmetic."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.backprop.rules import branches_of
from jaxnets.base.display import shortened, table, width_of
from jaxnets.base.errors import UserError
from jaxnets.base.language import _
from jaxnets.config.command import CommandResult
from jaxnets.drawing.charts import short_number
from jaxnets.drawing.svg import Figure
from jaxnets.machine.platform import set_up_jax
from jaxnets.models.chain import Chain, apply_layer

# The picture, in pixels.
WIDTH, ROW, TOP = 640, 46, 30
# The left edges of the columns: glyph, name, shape, and the bars of parameters and FLOPs.
GLYPH, NAME, SHAPE, PARAMS, FLOPS = 34, 74, 240, 350, 500
BAR = 110
MAPS = 4  # The largest number of squares in a glyph.


class LayerSize(NamedTuple):
    """A layer of the table."""

    layer: str  # Its name, if it has parameters, and its kind.
    shape: tuple[int, ...]  # The shape of the output for one image.
    params: int
    flops: int  # In the forward pass of one image; a multiplication and an addition are two.
    depth: int = 0  # The number of residual blocks around it; their own rows also count it.


@dataclasses.dataclass(frozen=True)
class Summary(CommandResult):
    """A network layer by layer."""

    title: str
    image_shape: Sequence[int]
    rows: Sequence[LayerSize]

    @property
    def totals(self) -> tuple[int, int]:
        """Parameters and operations of the whole network."""
        outermost = [row for row in self.rows if not row.depth]
        return sum(row.params for row in outermost), sum(row.flops for row in outermost)

    def values(self) -> dict[str, Any]:
        """The same for programs."""
        params, flops = self.totals
        return {
            "model": self.title,
            "image_shape": list(self.image_shape),
            "layers": [row._asdict() for row in self.rows],
            "params": params,
            "flops": flops,
        }

    def text(self) -> str:
        """The table and its sums."""
        cells = [(_("layer"), _("output shape"), _("parameters"), "FLOPs")]
        for row in [LayerSize(_("image"), tuple(self.image_shape), 0, 0), *self.rows]:
            shape = " x ".join(map(str, row.shape))
            name = 2 * row.depth * " " + row.layer
            cells.append((name, shape, f"{row.params:,}", f"{row.flops:,}"))
        head, *lines = table(cells, "<<>>")
        rule = "-" * width_of(head)
        params, flops = self.totals
        sums = [
            _("parameters: {} ({} MB in float32)", f"{params:,}", f"{params * 4 / 1e6:.2f}"),
            _("forward pass of one image: {} FLOPs", f"{flops:,}"),
        ]
        return "\n".join([self.title, rule, head, rule, *lines, rule, *sums])


def summary(model: Chain, image_shape: Sequence[int], title: str = "") -> Summary:
    """Every layer of a network, for an image [H, W, C]; nothing is computed, only shapes."""
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    too_small = UserError("images of {} are too small", tuple(image_shape))
    set_up_jax()
    try:
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
    except ZeroDivisionError:
        raise too_small from None
    rows = list(_rows(model, variables["params"], x, 0))
    if any(0 in row.shape for row in rows):
        raise too_small
    return Summary(title, image_shape, rows)


def _rows(chain: Chain, params: Any, x: Any, depth: int) -> Iterator[LayerSize]:
    """Each layer's row; the rows of a block's layers follow the block's row."""
    for layer in chain.layers:
        own, before = params.get(getattr(layer, "name", None), {}), x
        x, flops = _forward(layer, own, x)
        size = sum(leaf.size for leaf in jax.tree.leaves(own))
        yield LayerSize(describe_layer(layer, own), tuple(x.shape[1:]), size, flops, depth)
        for number, (name, inner) in enumerate(branches_of(layer).items()):
            for row in _rows(inner, own.get(name, {}), before, depth + 1):
                yield row if number == 0 else row._replace(layer=f"{name}: {row.layer}")


def _forward(layer: Any, params: Any, x: jax.ShapeDtypeStruct) -> tuple[Any, int]:
    """A layer's output shape and operations."""
    forward = functools.partial(apply_layer, layer)
    lowered = jax.jit(forward).lower(params, x)
    cost = lowered.cost_analysis() or {}
    return jax.eval_shape(forward, params, x), max(int(cost.get("flops", 0)), 0)


def describe_layer(layer: Any, params: Any) -> str:
    """Describes a layer, for example "conv1 (Conv 3x3)" or "max_pool 2x2, stride 2"."""
    kind = type(layer).__name__
    if isinstance(layer, nn.Conv):
        kind += f" {'x'.join(map(str, np.atleast_1d(layer.kernel_size)))}"
    if isinstance(layer, nn.Dropout):
        return f"{kind} {layer.rate:g}"
    if branches := branches_of(layer):
        parts = [name if inner.layers else "x" for name, inner in branches.items()]
        return f"{layer.name} ({' + '.join(parts)})"
    if params:
        return f"{layer.name} ({kind})"
    if dataclasses.is_dataclass(layer):
        sizes = [str(value) for value in vars(layer).values() if isinstance(value, int)]
        return f"{kind} {', '.join(sizes)}".rstrip()
    return getattr(layer, "__name__", kind)


def network_figure(found: Summary) -> Figure:
    """Draws the layers, the image first; a residual block is one row."""
    rows = [row for row in found.rows if not row.depth]
    params, flops = found.totals
    alt = f"{found.title}: " + "; ".join(
        f"{row.layer}, {_shape(row.shape)}, {row.params:,} parameters" for row in rows
    )
    height = TOP + ROW * (len(rows) + 1) + 40
    figure = Figure(found.title, WIDTH, height, found.title, alt)
    heads = (NAME, "layer"), (SHAPE, "output"), (PARAMS, "parameters"), (FLOPS, "FLOPs an image")
    for x, text in heads:
        figure.text(x, 18, text, fill="soft")
    sides = [found.image_shape[0], *(row.shape[0] for row in rows if len(row.shape) == 3)]
    everything = [LayerSize("image", tuple(found.image_shape), 0, 0), *rows]
    for number, row in enumerate(everything):
        y = TOP + ROW * number + ROW / 2
        if number:
            figure.line(GLYPH, y - ROW + 17, GLYPH, y - 19, stroke="soft", stroke_width=1.5)
            points = f"{GLYPH - 4},{y - 23} {GLYPH + 4},{y - 23} {GLYPH},{y - 17}"
            figure.add("polygon", points=points, fill="soft")
        _glyph(figure, y, row.shape, max(sides))
        weight = 600 if row.params else None
        figure.text(NAME, y + 4, shortened(row.layer, 22), font_weight=weight)
        figure.text(SHAPE, y + 4, _shape(row.shape))
        most = max(row.params for row in rows), max(row.flops for row in rows)
        for x, value, largest, colour in (
            (PARAMS, row.params, most[0], "c1"),
            (FLOPS, row.flops, most[1], "c2"),
        ):
            if value:
                figure.text(x, y, f"{value:,}", font_size=11)
                figure.rect(x, y + 5, max(BAR * value / largest, 1), 6, fill=colour, rx=2)
    y = TOP + ROW * len(everything)
    figure.line(NAME, y + 6, WIDTH - 20, y + 6)
    figure.text(NAME, y + 26, "together", font_weight=600)
    figure.text(PARAMS, y + 26, f"{params:,}", font_weight=600)
    figure.text(FLOPS, y + 26, f"{flops:,}", font_weight=600)
    return figure


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(short_number, shape))


def _glyph(figure: Figure, y: float, shape: tuple[int, ...], largest: int) -> None:
    """Overlapping squares for maps, in proportion to their size; a bar for a row of numbers."""
    if len(shape) != 3:
        figure.rect(GLYPH - 20, y - 5, 40, 10, fill="c3", fill_opacity=0.55, rx=2)
        return
    side = max(5.0, 22 * (shape[0] / largest) ** 0.7)
    count = min(MAPS, shape[2])
    for k in reversed(range(count)):
        shift = 3 * (k - (count - 1) / 2)
        figure.rect(
            GLYPH - side / 2 + shift,
            y - side / 2 - shift,
            side,
            side,
            fill="c3",
            stroke="card",
            stroke_width=0.8,
            fill_opacity=0.9 - 0.18 * k,
        )
