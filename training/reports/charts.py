"""Draws the curves of a run. Knows only the history."""

from collections.abc import Sequence
from io import BytesIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.loops.cross_entropy import Epoch
from training.loops.self_critical import RewardEpoch


def draw_curves(history: Sequence[Epoch]) -> bytes:
    """Returns a PNG: loss and next-word accuracy of training and validation over the epochs, the best one marked."""
    epochs = [epoch.epoch for epoch in history]
    best = min(history, key=lambda epoch: epoch.validation_loss)
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    for axis, kind, unit in zip(axes, ("loss", "accuracy"), ("nats a word", "share of next words"), strict=True):
        for split, colour in (("train", "tab:blue"), ("validation", "tab:orange")):
            values = [getattr(epoch, f"{split}_{kind}") for epoch in history]
            axis.plot(epochs, values, "o-", color=colour, markersize=3, label=split)
        axis.axvline(best.epoch, color="grey", linestyle=":", label=f"best epoch ({best.epoch})")
        axis.set(title=kind, xlabel="epoch", ylabel=unit)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend()
    return _png(figure)


def draw_rewards(history: Sequence[RewardEpoch]) -> bytes:
    """Returns a PNG: rewards of sampled and greedy sentences over the epochs of a self-critical run."""
    epochs = [epoch.epoch for epoch in history]
    best = max(history, key=lambda epoch: epoch.validation_cider)
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    lines = (
        ("sample_reward", "reward of samples, training images", "tab:blue"),
        ("train_reward", "reward of greedy, training images", "tab:green"),
        ("validation_cider", "CIDEr of greedy, validation images", "tab:orange"),
    )
    for name, label, colour in lines:
        axis.plot(epochs, [getattr(epoch, name) for epoch in history], "o-", color=colour, markersize=3, label=label)
    axis.axvline(best.epoch, color="grey", linestyle=":", label=f"best epoch ({best.epoch})")
    axis.set(title="reward and CIDEr", xlabel="epoch", ylabel="CIDEr-D, and BLEU where it is part of the reward")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.legend()
    return _png(figure)


def _png(figure: Figure) -> bytes:
    content = BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return content.getvalue()
