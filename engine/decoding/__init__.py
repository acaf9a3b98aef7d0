"""Word-by-word decoding in numpy: greedy, sampling and beam search over any step model."""
