"""What is trained: encoders, the caption decoder and the files that keep their weights."""
