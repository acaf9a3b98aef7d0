"""Pages and pictures of what training and evaluation came to."""
