"""Where a decoder with attention looked while it wrote a sentence. Runs after the search, on finished sentences.

The search does not ask for it, so captions without it cost nothing more.
"""

from collections.abc import Sequence

import numpy as np

from engine.bundle.manifest import Manifest
from engine.errors import OptionsError
from engine.runtime.graphs import Graphs


def require_attention(manifest: Manifest) -> None:
    """Raises OptionsError for a bundle whose decoder has no attention."""
    if not manifest.attention:
        raise OptionsError(
            f"the model {manifest.name} has no attention: it sees an image as a whole; use a bundle with attention"
        )


def attention_maps(graphs: Graphs, features: np.ndarray, sentences: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Returns where the decoder looked for each word of each image's sentence, given as the ids of its words.

    features: float32 (images, *feature_shape). A result is float32 (words, height, width); each word's map sums to 1.
    Raises OptionsError for a bundle whose decoder has no attention.
    """
    manifest = graphs.bundle.manifest
    require_attention(manifest)
    maps = [np.zeros((len(sentence), *manifest.attention), np.float32) for sentence in sentences]
    order = sorted(range(len(sentences)), key=lambda i: -len(sentences[i]))  # longest first: rows leave from the end
    given, step = graphs.session("decoder_init"), graphs.session("decoder_step")
    first = [each.name for each in manifest.state], [part.name for part in manifest.context]
    found = given.run([*first[0], *first[1]], {"features": np.ascontiguousarray(features[order], np.float32)})
    state, context = found[: len(first[0])], found[len(first[0]) :]
    outputs = ["attention", *(each.next for each in manifest.state)]
    tokens = np.full(len(sentences), graphs.bundle.vocabulary.start_id)
    for place in range(max(map(len, sentences), default=0)):
        live = sum(len(sentence) > place for sentence in sentences)
        feed = {
            name: array[:live]
            for names, arrays in zip(first, (state, context), strict=True)
            for name, array in zip(names, arrays, strict=True)
        }
        looked, *state = step.run(outputs, {"token_ids": tokens[:live], **feed})
        for row, image in enumerate(order[:live]):
            maps[image][place] = looked[row]
        tokens = np.array([sentences[image][place] for image in order[:live]])
    return maps
