"""What a Triton model repository is made of: its settings, its config.pbtxt, and the model that the server runs."""
