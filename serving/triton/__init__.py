"""The parts of a Triton model repository: its settings, its config.pbtxt, and the model that the server runs."""
