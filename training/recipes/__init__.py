"""Recipes: whole bundles by one command each."""
