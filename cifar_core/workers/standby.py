"""Entry point of the worker processes that the app keeps in reserve.

    python -m cifar_core.workers.standby STORE_URL DEVICE NICENESS

Not a command for people: `cifar-lab worker` is.
"""

import os
import sys


def main(arguments: list[str]) -> None:
    url, device, niceness = arguments
    os.nice(int(niceness))
    from cifar_core.store import RunStore
    from cifar_core.workers.worker import heed_sigterm, stand_by

    heed_sigterm()
    stand_by(RunStore(url), device=device)
    # All is written. Taking the framework down can hang, and its device would count as taken for as long.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
