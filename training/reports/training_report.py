"""Reports on a run for people: predictions compared with the truth, and report.html. Trains nothing."""

import html
from collections.abc import Callable, Sequence

import numpy as np
import torch

from engine.bundle.vocabulary import Vocabulary
from training.data.batches import CaptionTable
from training.loops.cross_entropy import Epoch
from training.models.decoder import CaptionDecoder
from training.reports.thumbnails import inline, picture

STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
figure { display: flex; gap: 1rem; margin: 1.5rem 0; } figure img { flex: none; align-self: flex-start; }
figcaption b { display: block; } li { color: #666; } .curve { max-width: 100%; }
table { border-collapse: collapse; } td, th { padding: .1rem .8rem; text-align: right; }"""


def spread(images: int, count: int) -> np.ndarray:
    """Returns the positions of up to `count` images spread evenly over a table: int64 (count,)."""
    return np.linspace(0, images - 1, min(count, images)).astype(np.int64)


@torch.no_grad()
def predictions_table(decoder: CaptionDecoder, vocabulary: Vocabulary, table: CaptionTable, count: int = 3) -> str:
    """Prints the likeliest next words below the true ones, given the true words before; wrong ones are starred."""
    decoder.eval()
    batch = table.gather(table.offsets[spread(len(table.names), count)])
    device = decoder.output.weight.device
    tokens = torch.from_numpy(batch.tokens).to(device)
    logits = decoder(torch.from_numpy(batch.features).to(device), tokens[:, :-1])  # (count, length, vocabulary)
    guesses = logits.argmax(dim=-1).cpu().numpy()  # (count, length)
    lines = []
    for image, truths, guessed in zip(batch.images, batch.tokens[:, 1:], guesses, strict=True):
        kept = truths != vocabulary.pad_id
        true = [vocabulary.words[i] for i in truths[kept]]
        said = [vocabulary.words[i] for i in guessed[kept]]
        said = [word if word == wanted else f"*{word}" for word, wanted in zip(said, true, strict=True)]
        widths = [max(map(len, pair)) for pair in zip(true, said, strict=True)]
        lines.append(table.names[image])
        for title, words in (("true     ", true), ("predicted", said)):
            row = "  ".join(word.ljust(width) for word, width in zip(words, widths, strict=True))
            lines.append(f"  {title}  {row}".rstrip())
    return "\n".join(lines) + "\n"


def write_report(
    title: str,
    history: Sequence[Epoch],
    curve: bytes,
    photographs: Sequence[tuple[str, str, Sequence[str]]],
    read: Callable[[str], bytes],
) -> str:
    """Returns a self-contained HTML page: the curve, the epochs, photographs with their captions.

    `photographs` are image name, the model's caption and the references; `read` returns an image's bytes.
    """
    rows = "".join(
        f"<tr><td>{e.epoch}<td>{e.train_loss:.4f}<td>{e.validation_loss:.4f}"
        f"<td>{e.train_accuracy:.1%}<td>{e.validation_accuracy:.1%}<td>{e.seconds:.0f}"
        for e in history
    )
    figures = "\n".join(
        f"<figure>{picture(name, read)}<figcaption><b>{html.escape(caption)}</b>{html.escape(name)}"
        f"<ul>{''.join(f'<li>{html.escape(text)}' for text in references)}</ul></figcaption></figure>"
        for name, caption, references in photographs
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>
<h1>{html.escape(title)}</h1>
<img class="curve" src="{inline(curve, "png")}" alt="loss and accuracy over the epochs">
<table><tr><th>epoch<th>train loss<th>validation loss<th>train accuracy<th>validation accuracy<th>seconds{rows}</table>
<h2>Photographs of the validation list</h2>
<p>The model's greedy caption in bold, with people's captions below.</p>
{figures}
</html>
"""
