"""The curves of all training stages as one picture. Knows only histories."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.recipes.recipe import CROSS_ENTROPY, FINE_TUNING, SELF_CRITICAL

LOSSES = ("loss in nats a word", {"train": "train_loss", "validation": "validation_loss"}, min)
PANELS = {
    CROSS_ENTROPY: LOSSES,
    FINE_TUNING: LOSSES,
    SELF_CRITICAL: (
        "what greedy captions are worth",
        {"train": "train_reward", "validation": "validation_cider"},
        max,
    ),
}
COLOURS = {"train": "tab:blue", "validation": "tab:orange"}


def draw_stages(output: Path) -> bytes:
    """Returns a PNG with a panel for each training stage of a recipe's folder that has a history."""
    found = {name: output / name / "history.json" for name in PANELS}
    histories = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in found.items() if path.is_file()}
    figure = Figure(figsize=(5 * max(1, len(histories)), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, history) in zip(
        figure.subplots(1, len(histories), squeeze=False)[0], histories.items(), strict=True
    ):
        _draw(axes, name, history)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return content.getvalue()


def _label(split: str, key: str) -> str:
    return {"train_reward": "train, reward", "validation_cider": "validation, CIDEr"}.get(key, split)


def _draw(axes: Axes, name: str, history: list[dict[str, Any]]) -> None:
    label, series, better = PANELS[name]
    epochs = [epoch["epoch"] for epoch in history]
    for split, key in series.items():
        axes.plot(
            epochs,
            [epoch[key] for epoch in history],
            "o-",
            color=COLOURS[split],
            markersize=3,
            label=_label(split, key),
        )
    best = better(history, key=lambda epoch: epoch[series["validation"]])["epoch"]
    axes.axvline(best, color="grey", linestyle=":", label=f"best epoch ({best})")
    axes.set(title=name, xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
