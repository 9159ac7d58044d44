"""Workers on other machines, which connect to the searching process (the chief) and train trials for it.

The chief keeps schedule, store and checkpoints; a worker needs no shared disk, no dataset and no store. Both
sides exchange JSON texts and `.npz` files without pickled objects, as bytes over one connection of
`multiprocessing.connection` (never its pickles). Each side proves that it knows the token without sending it.
Nothing is encrypted: use a private network, or a tunnel such as `ssh -L`.

    chief → worker    settings and images once; then orders, each with the checkpoint to continue from; stops
    worker → chief    each epoch's checkpoint and report, other reports, and how each trial ended
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any

import numpy as np

from cifar_core.base.files import write_whole
from cifar_core.base.version import __version__
from cifar_core.errors import CifarLabError, ConfigError, TrainingError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.training.recorder import Progress, ProgressCallback, StopCallback, StopRequested
from cifar_core.tuning.local_workers import ProcessTrainer, TrialTrainer, WorkerLeft, WorkerLostError
from cifar_core.tuning.trial import Order, Outcome, TrialImages, checkpoint_file, own_checkpoint

LOOPBACK = "127.0.0.1"
POLL_S = 0.2
"""Seconds between checks for a stop request while waiting for the other side."""
PATIENCE_S = 60.0
"""Seconds that a worker may take to stop a trial before it is given up."""
CONNECTION_LOST = (EOFError, OSError)
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}
"""Keep-alive settings: a lost peer is detected after about 90 seconds."""


def read_address(text: str) -> tuple[str, int]:
    """Host and port from "HOST:PORT"; a port alone is one of this machine (127.0.0.1).

    Raises:
        ConfigError: the text has another form.
    """
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ConfigError(f"An address must be HOST:PORT, e.g. 192.168.0.7:7000; got {text!r}.")
    return host or LOOPBACK, int(port)


# --- The chief's side ------------------------------------------------------------------------


class WorkerListener:
    """Accepts workers on other machines at `address`; port 0 takes any free one.

    `join` is called with a trainer for each worker that has connected and knows the `token`.
    """

    def __init__(
        self,
        address: tuple[str, int],
        token: str,
        config: SearchConfig,
        images: TrialImages,
        folder: Path,
        join: Callable[[TrialTrainer], None],
    ) -> None:
        self._token, self._config, self._folder, self._join = token.encode(), config, folder, join
        packed = io.BytesIO()
        np.savez(packed, *images.train, *images.validation)
        self._images = packed.getvalue()
        try:
            self._listener = Listener(address, "AF_INET")
        except OSError as error:
            raise ConfigError(f"Can't listen at {address[0]}:{address[1]}: {error.strerror}.") from None
        self.address: tuple[str, int] = self._listener.address
        self._closed = False
        self._thread = threading.Thread(target=self._listen, name="cifar-lab-listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Accept no more workers; those connected stay."""
        self._closed = True
        with contextlib.suppress(OSError), socket.create_connection(self.address, timeout=1):
            pass  # wakes the waiting accept, which a close does not
        self._thread.join()
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                continue  # the peer hung up at once
            if self._closed:
                connection.close()
                return
            threading.Thread(target=self._admit, args=(connection,), daemon=True).start()

    def _admit(self, connection: Connection) -> None:
        """Authenticate a worker, in a thread of its own so that a silent peer blocks nobody else."""
        try:
            deliver_challenge(connection, self._token)
            answer_challenge(connection, self._token)
            _keep_alive(connection)
            head = {"version": __version__, "config": self._config.model_dump(mode="json")}
            _send(connection, head, self._images)
            message, _ = _receive(connection)
        except (AuthenticationError, ValueError, *CONNECTION_LOST):
            connection.close()
            return
        if "ready" in message and not self._closed:
            self._join(RemoteTrainer(connection, self._folder, str(message["ready"])))
        else:
            connection.close()


class RemoteTrainer:
    """Trains trials on the connected worker `name`; their checkpoints are kept in `folder`."""

    def __init__(self, connection: Connection, folder: Path, name: str) -> None:
        self._connection, self._folder, self._name = connection, folder, name
        self._heard = False

    def train(self, order: Order, *, report: ProgressCallback, should_stop: StopCallback) -> Outcome:
        """As `Trainer.train`.

        Raises:
            WorkerLeft: the worker departed in order, or before it reported anything of this trial.
            WorkerLostError: the connection broke during the trial.
        """
        checkpoint = own_checkpoint(self._folder, order)
        self._heard = False
        try:
            content = checkpoint.read_bytes() if checkpoint.exists() else None
            _send(self._connection, {"order": asdict(order)}, content)
            return self._follow(checkpoint, report, should_stop)
        except CONNECTION_LOST:
            if not self._heard:
                raise WorkerLeft from None
            raise WorkerLostError(
                f"The worker on {self._name} that trained it was lost: it ended, or the network failed."
            ) from None

    def close(self) -> None:
        self._connection.close()

    def _follow(self, checkpoint: Path, report: ProgressCallback, should_stop: StopCallback) -> Outcome:
        deadline: float | None = None
        while True:
            if deadline is None and should_stop():
                deadline = time.monotonic() + PATIENCE_S
                _send(self._connection, {"stop": True})
            if deadline is not None and time.monotonic() > deadline:
                raise StopRequested
            if not self._connection.poll(POLL_S):
                continue
            message, content = _receive(self._connection)
            self._heard = True
            if content is not None:
                write_whole(checkpoint, content)
            if "stopped" in message:
                raise WorkerLeft if deadline is None else StopRequested
            if "failed" in message:
                raise TrainingError(message["failed"])
            if "report" in message:
                report(Progress(**message["report"]))
            if "outcome" in message:
                return Outcome(**message["outcome"])


# --- The worker's side -----------------------------------------------------------------------


def work_for(
    address: tuple[str, int],
    token: str,
    *,
    should_stop: StopCallback,
    say: Callable[[str], None] = lambda text: None,  # noqa: ARG005
) -> int:
    """Train trials for the chief at `address` until the search ends; the number of trials completed.

    Trials are trained in worker processes, so that a crash costs one trial.

    Args:
        should_stop: asked after each training step; True returns the trial to the chief.
        say: called with messages for people.

    Raises:
        ConfigError: no search at the address, another token, or another release.
    """
    try:
        connection = Client(address, "AF_INET", authkey=token.encode())
    except AuthenticationError:
        raise ConfigError(f"The chief at {address[0]}:{address[1]} has another token.") from None
    except CONNECTION_LOST as error:
        raise ConfigError(f"No search listens at {address[0]}:{address[1]} ({error}).") from None
    with connection, tempfile.TemporaryDirectory(prefix="cifar-lab-worker-") as folder:
        try:
            _keep_alive(connection)
            return _WorkerSession(connection, Path(folder), should_stop, say).run()
        except CONNECTION_LOST:
            return 0  # the search ended while this worker connected


class _WorkerSession:
    """The worker's end of a connection to a chief."""

    def __init__(
        self, connection: Connection, folder: Path, should_stop: StopCallback, say: Callable[[str], None]
    ) -> None:
        self._connection, self._folder = connection, folder
        self._should_stop, self._say = should_stop, say
        self._chief_stops = False
        self._done = 0

    def run(self) -> int:
        head, images = _receive(self._connection)
        if head["version"] != __version__:
            raise ConfigError(f"The chief has release {head['version']}, this worker {__version__}.")
        with np.load(io.BytesIO(images or b""), allow_pickle=False) as arrays:
            x, y, x_validation, y_validation = (arrays[f"arr_{place}"] for place in range(4))
        TrialImages((x, y), (x_validation, y_validation)).save(self._folder)
        trainer = ProcessTrainer(SearchConfig(**head["config"]), self._folder)
        try:
            _send(self._connection, {"ready": socket.gethostname()})
            self._say("waiting for trials")
            while (order := self._next()) is not None:
                _send(self._connection, self._train(trainer, order))
        except CONNECTION_LOST:
            self._say("the search has ended, or the connection to it was lost")
        finally:
            trainer.close()
        return self._done

    def _next(self) -> Order | None:
        while not self._should_stop():
            if self._connection.poll(POLL_S):
                message, checkpoint = _receive(self._connection)
                if "order" not in message:
                    continue  # a stop that arrived just after its trial had ended
                order = Order(**message["order"])
                own = checkpoint_file(self._folder, order.trial_id)
                own.unlink(missing_ok=True)
                if checkpoint is not None:
                    own.write_bytes(checkpoint)
                return order
        return None

    def _train(self, trainer: ProcessTrainer, order: Order) -> dict[str, Any]:
        self._say(f"trial {order.trial_id}: epochs {order.first_epoch + 1} to {order.epochs}")
        self._chief_stops = False
        own = checkpoint_file(self._folder, order.trial_id)

        def report(progress: Progress) -> None:
            content = own.read_bytes() if progress.kind == "epoch" else None
            try:
                _send(self._connection, {"report": asdict(progress)}, content)
            except CONNECTION_LOST:
                self._chief_stops = True

        message: dict[str, Any]
        try:
            outcome = trainer.train(order, report=report, should_stop=self._stop_requested)
            message = {"outcome": asdict(outcome)}
            self._done += 1
        except StopRequested:
            message = {"stopped": True}
        except CifarLabError as error:
            message = {"failed": str(error)}
        own.unlink(missing_ok=True)
        return message

    def _stop_requested(self) -> bool:
        """Whether whoever started this worker, or the chief, wants a stop, or the chief is gone."""
        if not self._chief_stops and self._connection.poll():
            try:
                self._chief_stops = "stop" in _receive(self._connection)[0]
            except CONNECTION_LOST:
                self._chief_stops = True
        return self._chief_stops or self._should_stop()


# --- Messages --------------------------------------------------------------------------------


def _send(connection: Connection, message: dict[str, Any], content: bytes | None = None) -> None:
    connection.send_bytes(json.dumps({**message, "content": content is not None}).encode())
    if content is not None:
        connection.send_bytes(content)


def _receive(connection: Connection) -> tuple[dict[str, Any], bytes | None]:
    message = json.loads(connection.recv_bytes())
    content = connection.recv_bytes() if message.pop("content") else None
    return message, content


def _keep_alive(connection: Connection) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
