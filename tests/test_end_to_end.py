"""From drawn shapes to captions: trained, exported and captioned within the session."""

from pathlib import Path

from engine import Beam, Captioner, Greedy
from tests.drawn import COLOURS


def colours_right(captions: list[str], first: int) -> float:
    """Share of captions that name the colour of their picture; pictures cycle through the colours."""
    names = list(COLOURS)
    wanted = [names[(first + i) % len(names)] for i in range(len(captions))]
    return sum(colour in text.split() for colour, text in zip(wanted, captions, strict=True)) / len(captions)


def test_a_model_trained_on_drawn_shapes_names_the_colours_of_new_ones(
    drawn_data: Path, tiny_captioner: Captioner
) -> None:
    names = (drawn_data / "val.txt").read_text(encoding="utf-8").split()
    images = [drawn_data / "images" / name for name in names]
    for decoding in (Greedy(), Beam(beam_size=3)):
        captions = tiny_captioner.caption(images, decoding)
        assert all(caption.finished and len(caption.tokens) >= 4 for caption in captions)
        assert colours_right([caption.text for caption in captions], int(names[0][:4])) >= 0.8
