"""Draws the curves of a run. Knows only the history."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.loops.contrastive import JointEpoch
from training.loops.cross_entropy import Epoch
from training.loops.loop import Record
from training.loops.self_critical import RewardEpoch

BLUE, GREEN, ORANGE = "tab:blue", "tab:green", "tab:orange"


def draw_curves(history: Sequence[Epoch]) -> bytes:
    """Returns a PNG: loss and next-word accuracy of training and validation over the epochs, the best one marked."""
    best = min(history, key=lambda epoch: epoch.validation_loss)
    figure = Figure(figsize=(10, 4), layout="constrained")
    units = {"loss": "nats a word", "accuracy": "share of next words"}
    for axis, (kind, unit) in zip(figure.subplots(1, 2), units.items(), strict=True):
        lines = [(f"{split}_{kind}", split, colour) for split, colour in (("train", BLUE), ("validation", ORANGE))]
        _plot(axis, history, best, lines)
        axis.set(title=kind, ylabel=unit)
    return _png(figure)


def draw_rewards(history: Sequence[RewardEpoch]) -> bytes:
    """Returns a PNG: rewards of sampled and greedy sentences over the epochs of a self-critical run."""
    best = max(history, key=lambda epoch: epoch.validation_cider)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    lines = [
        ("sample_reward", "reward of samples, training images", BLUE),
        ("train_reward", "reward of greedy, training images", GREEN),
        ("validation_cider", "CIDEr of greedy, validation images", ORANGE),
    ]
    _plot(axis, history, best, lines)
    axis.set(title="reward and CIDEr", ylabel="CIDEr-D, and BLEU where it is part of the reward")
    return _png(figure)


def draw_recalls(history: Sequence[JointEpoch]) -> bytes:
    """Returns a PNG: the loss, and the recall of images by texts on the validation list, the best epoch marked."""
    best = max(history, key=lambda epoch: epoch.recall_1 + epoch.recall_5 + epoch.recall_10)
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, recall = figure.subplots(1, 2)
    _plot(loss, history, best, [("train_loss", "train", BLUE)])
    loss.set(title="loss", ylabel="nats")
    colours = {"recall_1": BLUE, "recall_5": GREEN, "recall_10": ORANGE}
    lines = [(name, f"among the first {name.removeprefix('recall_')}", colour) for name, colour in colours.items()]
    _plot(recall, history, best, lines)
    recall.set(title="photographs found by their sentences", ylabel="share of sentences", ylim=(0, 1))
    return _png(figure)


def _plot(axis: Any, history: Sequence[Record], best: Record, lines: Sequence[tuple[str, str, str]]) -> None:
    """Draws numbers of each epoch; lines: name of the number, label and colour."""
    for name, label, colour in lines:
        values = [getattr(epoch, name) for epoch in history]
        axis.plot([epoch.epoch for epoch in history], values, "o-", color=colour, markersize=3, label=label)
    axis.axvline(best.epoch, color="grey", linestyle=":", label=f"best epoch ({best.epoch})")
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.legend()


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return content.getvalue()
