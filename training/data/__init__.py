"""Photographs and their captions: data sets, views, features and batches of them."""
