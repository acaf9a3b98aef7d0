"""Confidence of captions: fitting the model, and measuring how reliable it is."""
