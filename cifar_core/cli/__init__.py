"""The command line: `cifar-lab ...`, or `python -m cifar_core ...`.

Each command is a thin layer over a function of `cifar_core`; its flags, their help and their
ranges come from the settings' own declarations. A command's module is imported when that command
is asked for, so that `--help` and mistakes are answered at once.
"""

from cifar_core.cli.entry import main

__all__ = ["main"]
