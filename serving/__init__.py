"""Thin adapters that turn the engine into services. They use only its public names, and nothing imports them."""
