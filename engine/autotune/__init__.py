"""What "auto" takes on this machine: measured once, kept in the user's cache, chosen from then on."""
