"""The command line: `cifar-lab ...`, or `python -m cifar_core ...`.

Each command is a thin layer over functions of `cifar_core`; options, their help and their ranges come from
the declarations of the settings. A command's module is imported when that command is used.
"""

from cifar_core.cli.app import main

__all__ = ["main"]
