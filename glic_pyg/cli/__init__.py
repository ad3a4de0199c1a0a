"""The command `glic`.

words -> main: which command -> its module: flags -> run: imports torch, and calls a function of the package

A module per command has its help as docstring, `add_arguments(parser)` and `run(args)`, the exit status. Only
`run` imports what takes long: help and a typo are answered at once.
"""
