"""Recipes: each makes a complete bundle with one command."""
