"""Word by word search in numpy: greedy, sampling and beam over any step model."""
