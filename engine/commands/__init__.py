"""The commands of `python -m engine`, one module each.

Each module's `add` adds a parser with two defaults. `command` is the function to run: it gets the parsed arguments and
a factory of Captioners, and returns the exit code. `interrupted` is the message after Ctrl+C.
"""
