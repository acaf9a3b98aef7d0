"""Draws a histogram of scores as an inline SVG. Knows only numbers."""

import numpy as np

from training.metrics.counts import Rows

WIDTH, HEIGHT, BINS = 960, 220, 40
LEFT, RIGHT, FLOOR = 10, WIDTH - 10, HEIGHT - 30


def histogram(values: Rows, title: str) -> str:
    """Draws scores from 0, float64 (images,), with mean and median marked. The few highest share the last bar."""
    top = max(1.0, float(np.ceil(np.quantile(values, 0.995) * 2) / 2))
    counts, edges = np.histogram(np.clip(values, 0, top), bins=BINS, range=(0, top))
    width = (RIGHT - LEFT) / BINS
    heights = (FLOOR - 34) * counts / counts.max()  # (BINS,), pixels
    parts = ['<g class="bars">']
    for place, (count, height) in enumerate(zip(counts, heights, strict=True)):
        parts.append(
            f'<rect x="{LEFT + place * width + 1:.1f}" y="{FLOOR - height:.1f}" width="{width - 2:.1f}" '
            f'height="{height:.1f}" rx="2"><title>{edges[place]:.2f} to {edges[place + 1]:.2f}: '
            f"{count:,} photographs</title></rect>"
        )
    parts.append(f'</g><path d="M{LEFT} {FLOOR}H{RIGHT}"/>')
    for value in np.arange(0, top + 0.01, 0.5 if top <= 4 else 1):
        x = LEFT + (RIGHT - LEFT) * value / top
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{value:g}</text>')
    parts.append('<g class="marks">')
    for name, value, y in (("median", np.median(values), 12), ("mean", values.mean(), 26)):
        x = LEFT + (RIGHT - LEFT) * min(float(value), top) / top
        parts.append(f'<line x1="{x:.1f}" y1="{y - 8}" x2="{x:.1f}" y2="{FLOOR}"/>')
        parts.append(f'<text x="{x + 5:.1f}" y="{y}">{name} {value:.2f}</text>')
    parts.append("</g>")
    return (
        f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
    )
