"""`cluster`: queued runs and searches on several machines."""

from __future__ import annotations

from collections.abc import Sequence

import click

from cifar_core.cli.app import PROGRAM, command, current_store, stopping
from cifar_core.errors import ConfigError
from cifar_core.workers.cluster.ray_nodes import LOCAL


@command("cluster")
@click.option(
    "--address",
    metavar="HOST:PORT",
    default=LOCAL,
    help="Head node of a running Ray cluster, or local: a cluster of this machine alone.",
)
@click.option("--cpus", type=click.FloatRange(min=0), default=1.0, help="CPUs of a run or trial.")
@click.option("--gpus", type=click.FloatRange(min=0), default=0.0, help="GPUs of a run or trial.")
@click.option(
    "--resource",
    "resources",
    metavar="NAME=AMOUNT",
    multiple=True,
    help="Another resource that a run or trial needs, as 'ray start --resources' gave it to nodes.",
)
@click.option(
    "--idle-exit", type=click.FloatRange(min=0), metavar="SECONDS", help="End after so long without work."
)
def cluster(address: str, cpus: float, gpus: float, resources: Sequence[str], idle_exit: float | None) -> int:
    """Train queued runs and searches on the nodes of a Ray cluster, until stopped.

    Each run or trial gets one actor with the CPUs, GPUs and other resources asked for. Nodes need neither
    the store nor the images. Ctrl-C or SIGTERM stops all runs after a step; they can be resumed. When this
    process was killed, start it again: it goes on with the runs that it left.
    """
    from cifar_core.workers.cluster.driver import Driver
    from cifar_core.workers.cluster.pool import in_words
    from cifar_core.workers.cluster.ray_nodes import RayNodes

    needs = {"CPU": cpus, "GPU": gpus} | dict(_resource(text) for text in resources)
    store, nodes = current_store(), RayNodes(address)
    driver = Driver(store, nodes, needs)
    there = ", ".join(node.name for node in nodes.nodes())
    click.echo(
        f"{PROGRAM}: cluster at {nodes.address} with {there}; {in_words(needs)} for each run", err=True
    )
    with stopping() as stop:
        try:
            driver.run(stop.requested, idle_exit=idle_exit)
        finally:
            nodes.close()
    return stop.exit_status if stop.requested() else 0


def _resource(text: str) -> tuple[str, float]:
    name, equals, amount = text.partition("=")
    try:
        if name and equals and float(amount) > 0:
            return name, float(amount)
    except ValueError:
        pass
    raise ConfigError(f"--resource must be NAME=AMOUNT, e.g. big_memory=1; got {text!r}.")
