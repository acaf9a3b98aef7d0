"""Thin adapters that put the engine into services; they use its public names only, and nothing imports them."""
