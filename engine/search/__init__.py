"""Finding photographs by words: an index of captions, features and vectors, and the search in it."""
