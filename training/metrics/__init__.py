"""Scores of captions: BLEU, METEOR, ROUGE-L and CIDEr, their intervals, and the files that hold them."""
