"""The baselines that a user would pick instead: the same bundle in another library, searched in plain Python."""
