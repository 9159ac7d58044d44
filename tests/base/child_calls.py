"""Functions that tests call in child processes; none loads a framework."""

import os
import sys
import time

from cifar_core.errors import CifarLabError, ConfigError


def pid():
    return os.getpid()


def chatty(steps, report):
    for step in range(steps):
        report(step / steps, f"step {step}")
        os.write(1, b"a framework talks\n")
        print("and warns", file=sys.stderr)
    return steps


def variables(names):
    return [os.environ.get(name) for name in names]


def failing(what):
    if what == "refuse":
        raise ConfigError("no such network")
    if what == "fail":
        raise ValueError("a bad number")
    if what == "unpicklable error":

        class LocalError(CifarLabError):
            pass

        raise LocalError("only in the child")
    return lambda: None


def die(status):
    print("the last straw", file=sys.stderr, flush=True)
    if status < 0:
        os.kill(os.getpid(), -status)
    os._exit(status)


def hanging(report):
    report(0.5, "hanging")
    time.sleep(60)
