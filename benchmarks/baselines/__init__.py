"""The baselines that a user would choose instead: the same bundle in other libraries, with a search in plain Python."""
