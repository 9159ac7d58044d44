"""Workers on other machines: they come to the searching process, the chief, and train for it.

The chief keeps schedule, store and checkpoints; a worker needs no disk in common with it, no dataset and no
store. Between them goes what goes between the chief and its own worker processes (see `process`), over one
connection of `multiprocessing.connection`, of which only bytes are used and never its pickles: JSON texts,
and `.npz` files without objects. Each side proves that it knows the token, and does not send it. What is
sent is not encrypted: use a private network, or a tunnel such as `ssh -L`.

    chief → worker    settings and images, once; then an order with the checkpoint to go on from; a stop
    worker → chief    reports, each epoch's checkpoint before its report; how the trial ended
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

from cifar_core.base.version import __version__
from cifar_core.errors import CifarLabError, ConfigError, TrainingError
from cifar_core.settings.search_config import SearchConfig
from cifar_core.training.recorder import Progress
from cifar_core.tuning.crew import TrialTrainer, WorkerLeft, WorkerLostError
from cifar_core.tuning.process import PATIENCE_S, POLL_S, ProcessTrainer, save_images
from cifar_core.tuning.trial import (
    Order,
    Outcome,
    TrialImages,
    checkpoint_file,
    own_checkpoint,
    write_atomically,
)

LOOPBACK = "127.0.0.1"
TRIALS_PER_PROCESS = 5
LOST = (EOFError, OSError)
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}
"""A machine that vanished without a word is noticed after a minute and a half."""


def read_address(text: str) -> tuple[str, int]:
    """ "HOST:PORT", or a port alone, which is this machine's.

    Raises:
        ConfigError: anything else.
    """
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ConfigError(f"An address is HOST:PORT, e.g. 192.168.0.7:7000; got {text!r}.")
    return host or LOOPBACK, int(port)


# --- The chief's side ------------------------------------------------------------------------


class Door:
    """Where workers of other machines come in.

    Args:
        address: to listen at; a port of 0 takes any that is free.
        token: what they must know.
        config: of the search.
        images: of the search.
        folder: of the search.
        join: is given a trainer for each worker that came in.
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
        self._images = _packed(images)
        try:
            self._listener = Listener(address, "AF_INET")
        except OSError as error:
            raise ConfigError(f"Can't listen at {address[0]}:{address[1]}: {error.strerror}.") from None
        self.address: tuple[str, int] = self._listener.address  # type: ignore[assignment]
        self._closed = False
        self._thread = threading.Thread(target=self._listen, name="cifar-lab-door", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nobody comes in any more; those inside stay."""
        self._closed = True
        with contextlib.suppress(OSError), socket.create_connection(self.address, timeout=1):
            pass  # an accept that waits does not heed a close
        self._thread.join()
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                continue  # one that hung up at once
            if self._closed:
                connection.close()
                return
            threading.Thread(target=self._let_in, args=(connection,), daemon=True).start()

    def _let_in(self, connection: Connection) -> None:
        """In a thread of its own: one that connects and says nothing keeps nobody else out."""
        try:
            deliver_challenge(connection, self._token)
            answer_challenge(connection, self._token)
            _keep_alive(connection)
            head = {"version": __version__, "config": self._config.model_dump(mode="json")}
            _send(connection, head, self._images)
            said, _ = _receive(connection)
        except (AuthenticationError, ValueError, *LOST):
            connection.close()
            return
        if "ready" in said and not self._closed:
            self._join(RemoteTrainer(connection, self._folder, str(said["ready"])))
        else:
            connection.close()


class RemoteTrainer:
    """Trains trials through a worker that came in; their checkpoints stand in `folder`, as all others do."""

    def __init__(self, connection: Connection, folder: Path, name: str) -> None:
        self._connection, self._folder, self._name = connection, folder, name
        self._heard = False

    def train(
        self, order: Order, *, report: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> Outcome:
        """As `Trainer.train`. WorkerLostError: it is gone without a word; WorkerLeft: it said good-bye, or
        was gone before it said anything of this trial, which therefore did not begin."""
        checkpoint = own_checkpoint(self._folder, order)
        self._heard = False
        try:
            known = checkpoint.read_bytes() if checkpoint.exists() else None
            _send(self._connection, {"order": asdict(order)}, known)
            return self._follow(checkpoint, report, should_stop)
        except LOST:
            if not self._heard:
                raise WorkerLeft from None
            raise WorkerLostError(
                f"The worker on {self._name} that trained it was lost: it ended, or the network failed."
            ) from None

    def close(self) -> None:
        self._connection.close()

    def _follow(
        self, checkpoint: Path, report: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> Outcome:
        from cifar_core.training.callbacks import StopRequested

        deadline: float | None = None
        while True:
            if deadline is None and should_stop():
                deadline = time.monotonic() + PATIENCE_S
                _send(self._connection, {"stop": True})
            if deadline is not None and time.monotonic() > deadline:
                raise StopRequested
            if not self._connection.poll(POLL_S):
                continue
            said, content = _receive(self._connection)
            self._heard = True
            if content is not None:
                write_atomically(checkpoint, lambda stream, content=content: stream.write(content))
            if "report" in said:
                report(Progress(**said["report"]))
            elif "failed" in said:
                raise TrainingError(said["failed"])
            elif "stopped" in said:
                raise StopRequested if deadline is not None else WorkerLeft
            elif "outcome" in said:
                return Outcome(**said["outcome"])


# --- The worker's side -----------------------------------------------------------------------


def work_for(
    address: tuple[str, int],
    token: str,
    *,
    should_stop: Callable[[], bool],
    say: Callable[[str], None] | None = None,
) -> int:
    """Train what the chief at `address` orders, until it has no more or `should_stop` says so.

    Trials are trained in processes of their own, so that one that takes its process down is one failed
    trial. Gives how many were trained to their end.

    Raises:
        ConfigError: no chief there, another token, or another release.
    """
    try:
        connection = Client(address, "AF_INET", authkey=token.encode())
    except AuthenticationError:
        raise ConfigError(f"The chief at {address[0]}:{address[1]} has another token.") from None
    except LOST as error:
        raise ConfigError(f"No search listens at {address[0]}:{address[1]} ({error}).") from None
    with connection, tempfile.TemporaryDirectory(prefix="cifar-lab-worker-") as folder:
        try:
            _keep_alive(connection)
            return _Visit(connection, Path(folder), should_stop, say or _silent).stay()
        except LOST:
            return 0  # it ended as this one came


def _silent(text: str) -> None:
    """For a worker that nobody listens to."""


class _Visit:
    """A worker's stay with a chief."""

    def __init__(
        self,
        connection: Connection,
        folder: Path,
        should_stop: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        self._connection, self._folder = connection, folder
        self._should_stop, self._say = should_stop, say
        self._told_to_stop = False
        self._done = 0

    def stay(self) -> int:
        head, images = _receive(self._connection)
        if head["version"] != __version__:
            raise ConfigError(f"The chief is of release {head['version']}, this worker of {__version__}.")
        save_images(_unpacked(images or b""), self._folder)
        trainer = ProcessTrainer(SearchConfig(**head["config"]), self._folder, trials=TRIALS_PER_PROCESS)
        try:
            _send(self._connection, {"ready": socket.gethostname()})
            self._say("waiting for trials")
            while (order := self._next()) is not None:
                _send(self._connection, self._carried_out(trainer, order))
        except LOST:
            self._say("the search has ended, or its machine is gone")
        finally:
            trainer.close()
        return self._done

    def _next(self) -> Order | None:
        while not self._should_stop():
            if self._connection.poll(POLL_S):
                said, checkpoint = _receive(self._connection)
                if "order" not in said:
                    continue  # a stop that came when the trial had just ended
                order = Order(**said["order"])
                own = checkpoint_file(self._folder, order.trial_id)
                own.unlink(missing_ok=True)
                if checkpoint is not None:
                    own.write_bytes(checkpoint)
                return order
        return None

    def _carried_out(self, trainer: ProcessTrainer, order: Order) -> dict[str, Any]:
        from cifar_core.training.callbacks import StopRequested

        self._say(f"trial {order.trial_id}: epochs {order.first_epoch + 1} to {order.epochs}")
        self._told_to_stop = False
        own = checkpoint_file(self._folder, order.trial_id)

        def report(progress: Progress) -> None:
            content = own.read_bytes() if progress.kind == "epoch" else None
            _send(self._connection, {"report": asdict(progress)}, content)

        try:
            outcome = trainer.train(order, report=report, should_stop=self._stop_asked)
        except StopRequested:
            return {"stopped": True}
        except CifarLabError as error:
            return {"failed": str(error)}
        finally:
            own.unlink(missing_ok=True)
        self._done += 1
        return {"outcome": asdict(outcome)}

    def _stop_asked(self) -> bool:
        """By whoever started this worker, by the chief, or because that one is gone."""
        if not self._told_to_stop and self._connection.poll():
            try:
                self._told_to_stop = "stop" in _receive(self._connection)[0]
            except LOST:
                self._told_to_stop = True
        return self._told_to_stop or self._should_stop()


# --- What goes between them --------------------------------------------------------------------


def _send(connection: Connection, message: dict[str, Any], content: bytes | None = None) -> None:
    connection.send_bytes(json.dumps({**message, "content": content is not None}).encode())
    if content is not None:
        connection.send_bytes(content)


def _receive(connection: Connection) -> tuple[dict[str, Any], bytes | None]:
    message = json.loads(connection.recv_bytes())
    content = connection.recv_bytes() if message.pop("content") else None
    return message, content


def _packed(images: TrialImages) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, *images.train, *images.validation)
    return stream.getvalue()


def _unpacked(content: bytes) -> TrialImages:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        parts = [arrays[f"arr_{place}"] for place in range(4)]
    return TrialImages((parts[0], parts[1]), (parts[2], parts[3]))


def _keep_alive(connection: Connection) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
