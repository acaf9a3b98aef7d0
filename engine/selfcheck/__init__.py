"""Whether graphs compute on this machine what they ought to: compared once, remembered, required before captions."""
