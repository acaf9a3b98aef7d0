"""How any two implementations are compared: who takes part, what they do, how they are timed, what is kept."""
