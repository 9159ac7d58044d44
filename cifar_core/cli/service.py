"""`worker`: carry out what is queued."""

from __future__ import annotations

import click

from cifar_core.cli.app import command, json_option
from cifar_core.cli.output import print_json
from cifar_core.cli.signals import stopping


@command("worker")
@click.option("--run", help="Only this queued run, and then end.")
@click.option("--device", default="local", help="One run at a time is carried out for each device by name.")
@click.option("--once", is_flag=True, show_default=False, help="End after one run.")
@click.option(
    "--idle-exit", type=click.FloatRange(min=0), metavar="SECONDS", help="End after so long without work."
)
@json_option()
def worker(run: str | None, device: str, once: bool, idle_exit: float | None, as_json: bool) -> int:
    """Carry out queued runs, one after another, until told to stop.

    Ctrl-C or SIGTERM stops the run going on within a step; it can be resumed.
    """
    from cifar_core.store import RunStore
    from cifar_core.workers.worker import run_worker

    store = RunStore()
    store.reap()
    with stopping() as stop:
        done = run_worker(
            store, run, device=device, once=once, idle_exit=idle_exit, should_stop=stop.requested
        )
    if as_json:
        print_json({"runs": done})
    else:
        click.echo(f"carried out {done} run{'' if done == 1 else 's'}")
    return stop.exit_status if stop.requested() else 0
