"""The curves of a training as a picture inside a page: SVG, which needs no package."""

import math
from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 340, 210, 52, 26, 30  # Pixels of one of the two pictures.
# Blue and orange differ for colour-blind eyes too; the second line is dashed as well.
STYLES = {"train": 'stroke="#1f5fb0"', "validation": 'stroke="#c44e00" stroke-dasharray="6 3"'}


def to_svg(records: Sequence[dict[str, Any]]) -> str:
    """Loss and accuracy over the epochs, of training and validation; "" before two epochs."""
    if len(records) < 2:
        return ""
    parts = [
        _curves(records, name, WIDTH * place) for place, name in enumerate(("loss", "accuracy"))
    ]
    last = ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}"
        for name, value in records[-1].items()
        if name.endswith(("_loss", "_accuracy")) and value is not None
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" height="{HEIGHT}" role="img" '
        f'viewBox="0 0 {2 * WIDTH} {HEIGHT}" style="background:#fff;max-width:100%;height:auto" '
        f'font-family="sans-serif" font-size="11" fill="#222"><title>after epoch '
        f"{records[-1]['epoch']}: {last}</title>{''.join(parts)}</svg>"
    )


def _curves(records: Sequence[dict[str, Any]], name: str, left: int) -> str:
    """One picture, its left edge at a pixel: axes with their ends, a line for each part."""
    columns = {part: [record.get(f"{part}_{name}") for record in records] for part in STYLES}
    points = {
        part: [
            (record["epoch"], value)
            for record, value in zip(records, values, strict=True)
            if value is not None and math.isfinite(value)
        ]
        for part, values in columns.items()
    }
    values = [value for line in points.values() for _, value in line] or [0.0, 1.0]
    low, high = min(values), max(values)
    first, last = records[0]["epoch"], records[-1]["epoch"]
    start, end, bottom = left + LEFT, left + WIDTH - 12, HEIGHT - BOTTOM

    def x(epoch: float) -> float:
        return start + (end - start) * (epoch - first) / max(last - first, 1)

    def y(value: float) -> float:
        return bottom - (bottom - TOP) * ((value - low) / ((high - low) or 1.0))

    drawn = [
        f'<path d="M{start} {TOP}V{bottom}H{end}" fill="none" stroke="#888"/>',
        f'<text x="{start - 5}" y="{TOP + 4}" text-anchor="end">{high:.3g}</text>',
        f'<text x="{start - 5}" y="{bottom + 4}" text-anchor="end">{low:.3g}</text>',
        f'<text x="{start}" y="{bottom + 14}">{first}</text>',
        f'<text x="{(start + end) / 2}" y="{bottom + 14}" text-anchor="middle">epoch</text>',
        f'<text x="{end}" y="{bottom + 14}" text-anchor="end">{last}</text>',
        f'<text x="{start}" y="14" font-weight="bold">{name}</text>',
    ]
    for place, (part, style) in enumerate(STYLES.items()):
        if points[part]:
            line = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in points[part])
            drawn.append(f'<polyline points="{line}" fill="none" stroke-width="2" {style}/>')
            at = start + 80 + 80 * place
            drawn.append(f'<path d="M{at} 10h18" fill="none" stroke-width="2" {style}/>')
            drawn.append(f'<text x="{at + 22}" y="14">{part}</text>')
    return "".join(drawn)
