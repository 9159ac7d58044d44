"""Variants that train nothing, for the worker processes of the benchmark's tests."""

import os
import sys
import time

from cifar_core.base.devices import ONEDNN_VARIABLE
from cifar_core.errors import ConfigError


def counting(start=0):
    """Says who it is, and how often it was asked."""
    asked = [start]

    def action(step=1):
        asked[0] += step
        return {"seconds": 0.001, "asked": asked[0], "pid": os.getpid(), "onednn": os.getenv(ONEDNN_VARIABLE)}

    return action


def chatty():
    print("a framework's opening speech")
    return lambda: {"seconds": 1.0}


def impossible():
    raise ConfigError("no such network")


def breaking(at):
    action = counting()

    def broken():
        if action()["asked"] == at:
            raise ValueError("a bad number")
        return {"seconds": 1.0}

    return broken


def dying(code):
    def die():
        sys.stderr.write("I am out of luck\n")
        sys.stderr.flush()
        os.kill(os.getpid(), code) if code else os._exit(7)

    return die


def sleeping():
    return lambda: time.sleep(600)
