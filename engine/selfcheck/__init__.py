"""The self-check: graphs must compute the right numbers on this machine before they caption. Passes are saved."""
