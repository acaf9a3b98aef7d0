"""The commands of `python -m engine`, one module each.

A command's `add` makes its parser and names in `command` what runs it: a function of the parsed arguments and of what
makes a Captioner, which returns the exit code. `interrupted` is what Ctrl-C leaves, unless the command tells itself.
"""
