"""What "auto" means on this machine: measured once by `tune`, saved in the user's cache, and used from then on."""
