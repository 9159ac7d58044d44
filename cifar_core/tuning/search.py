"""A whole search: propose, train, record, promote, stop, go on again, and train the winner in full.

The store's table of trials is the search's memory. A search that was stopped or killed is gone on
with by telling a new oracle what those trials came to (`schedule.Schedule`), so nothing is repeated but
the trials that were cut, and those only from their last completed epoch.

This module loads no framework until a search runs: pages read `SearchResult` and the plan.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from cifar_core.errors import (
    CifarLabError,
    ConfigError,
    ResumeError,
    RunStateError,
    StoreError,
    TrainingError,
)
from cifar_core.settings.compute import choice, prepare
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore, SearchRecord
from cifar_core.training.recorder import Progress, Recorder, StopCallback
from cifar_core.tuning.plan import ENDED, Plan, SearchStatus, make_plan, status
from cifar_core.tuning.space import check_space, full_epochs, trial_config, tuned_config
from cifar_core.tuning.trial import Order

if TYPE_CHECKING:
    import pandas as pd

    from cifar_core.data import Dataset
    from cifar_core.training.result import Run
    from cifar_core.tuning.crew import Crew, Ended, Together, TrialTrainer
    from cifar_core.tuning.oracle import Proposal
    from cifar_core.tuning.remote import Door
    from cifar_core.tuning.schedule import Schedule

MOST_FAILURES = 3
"""So many failed trials in a row end a search."""
STOP_FILE = "stop-after-trial"
TRIALS_PER_PROCESS = 5
"""With isolation="process": a worker is replaced after so many trials, and its memory is free again."""

Isolation = Literal["none", "process"]


@dataclass(frozen=True)
class Guests:
    """Workers of other machines may join a search; see `tuning.remote`.

    Attributes:
        address: to listen at, "HOST:PORT"; a port alone is for this machine only.
        token: a secret that they must know.
        local: how many of the search's workers run on this machine; None: all of them. Those that
            join come on top.
    """

    address: str
    token: str = field(repr=False)
    local: int | None = None


@dataclass(frozen=True)
class SearchProgress:
    """One report of a running search.

    `kind` is "stage", "step" and "epoch" of a trial, "trial" when one has ended, "final" for the
    winner's training. `training` is that training's own report. Epochs are those of all trials
    together. `eta_s` covers what is left of the search, the winner's training included.
    """

    kind: Literal["stage", "step", "epoch", "trial", "final"]
    stage: str
    trial_id: str | None
    status: SearchStatus
    best_trial: str | None
    best_score: float | None
    training: Progress | None = None


SearchCallback = Callable[[SearchProgress], None]


@dataclass(frozen=True)
class SearchResult:
    """What a search came to.

    `trials` has one row per trial as `RunStore.trials` gives it. `best_config` are the winner's
    settings for a full training; None, as `best_score` and `best_trial`, where no trial finished.
    `run` is the winner's full training; None where it was not wanted or not reached. `id` is None
    where nothing was stored.
    """

    id: str | None
    state: RunState
    trials: pd.DataFrame
    best_trial: str | None
    best_score: float | None
    best_config: TrainConfig | None
    run: Run | None = field(default=None, repr=False)


def tune(
    config: SearchConfig | None = None,
    *,
    store: RunStore | None = None,
    dataset: Dataset | None = None,
    search_id: str | None = None,
    progress: SearchCallback | None = None,
    should_stop: StopCallback | None = None,
    isolation: Isolation | None = None,
    guests: Guests | None = None,
) -> SearchResult:
    """Search as `config` says, or go on with the search `search_id`.

    Args:
        config: the settings; may be left out with `search_id`.
        store: where the search is recorded; None works in a temporary folder and leaves nothing.
        dataset: images to use; loaded by the settings where None. Trials see training images only.
        search_id: a search of the store that is queued, or was stopped, failed or crashed: nothing
            of it is repeated but the trials that were cut, from their last completed epoch.
        progress: called with a `SearchProgress` about once a second and after each epoch and trial.
        should_stop: asked after each step; True stops the search within that step. With several
            workers it is asked from several threads.
        isolation: "none" trains in this process, which grows by 12 to 130 MB a trial; "process" trains
            in worker processes that are replaced every few trials, so that memory stays flat and a
            trial that takes its process down is one failed trial. None: "process" for a search of
            several workers, else "none".
        guests: lets workers of other machines join, see `Guests`.

    Raises:
        ConfigError: the space or the settings are not possible.
        DataError: no usable images.
        RunNotFoundError: no such search.
        RunStateError: it is finished, or runs now.
        ResumeError: it began on other images, or with another release.
        TrainingError: three trials in a row failed, or all did. In a store the search is then FAILED,
            with the reason.
    """
    if isolation not in (None, *get_args(Isolation)):
        raise ConfigError(f"isolation must be one of {', '.join(get_args(Isolation))}; got {isolation!r}.")
    if search_id is None:
        if config is None:
            raise ConfigError("Give a SearchConfig, or the search_id of a search to go on with.")
        check_search(config)
    elif store is None:
        raise ConfigError("search_id names a search of a store: give store=RunStore() too.")
    options = {"dataset": dataset, "progress": progress, "should_stop": should_stop, "isolation": isolation}
    options["guests"] = guests
    if store is None:
        return _unrecorded(config, options)
    search_id = _claimed(store, config, search_id)
    return carry_out_search(store, search_id, **options)


def check_search(config: SearchConfig) -> Plan:
    """The plan of a search that is possible.

    Raises:
        ConfigError: it is not: see `space.check_space` and `plan.make_plan`.
    """
    check_space(config)
    return make_plan(config)


def stop_after_trial(store: RunStore, search_id: str) -> None:
    """Ask a running search to stop once its current trial has ended. `store.request_stop` stops at once."""
    store.write_artifact(store.get_search(search_id).id, STOP_FILE, b"")


def stopping_after_trial(store: RunStore, search_id: str) -> bool:
    """Was a running search asked to stop once its current trial has ended? The id whole."""
    return (store.artifact_dir(search_id) / STOP_FILE).exists()


def carry_out_search(
    store: RunStore,
    search_id: str,
    *,
    dataset: Dataset | None = None,
    progress: SearchCallback | None = None,
    should_stop: StopCallback | None = None,
    isolation: Isolation | None = None,
    guests: Guests | None = None,
) -> SearchResult:
    """Carry out a search of the store that this process has claimed. Arguments and errors as `tune`."""
    return _carried_out(store, search_id, dataset, progress, should_stop, isolation, guests, recorded=True)


def _unrecorded(config: SearchConfig | None, options: dict[str, Any]) -> SearchResult:
    with tempfile.TemporaryDirectory(prefix="cifar-lab-search-") as folder, RunStore(folder) as store:
        search_id = _claimed(store, config, None)
        return _carried_out(store, search_id, *options.values(), recorded=False)


def _claimed(store: RunStore, config: SearchConfig | None, search_id: str | None) -> str:
    """The search's whole id, once this process has it."""
    if search_id is None:
        assert config is not None
        return store.create_search(config, claim_for=os.getpid())
    store.reap()
    record = store.get_search(search_id)
    search_id = record.id
    if config is not None and config != record.config:
        raise ConfigError(f"{search_id} was begun with other settings; leave yours out to go on with it.")
    if record.state.is_resumable():
        store.requeue(search_id)
    if not store.claim(search_id, pid=os.getpid()):
        state = store.get_search(search_id).state
        raise RunStateError(
            f"{search_id} is {state}; one that is queued, stopped, failed or crashed can be gone on with."
        )
    return search_id


def _carried_out(
    store: RunStore,
    search_id: str,
    dataset: Dataset | None,
    progress: SearchCallback | None,
    should_stop: StopCallback | None,
    isolation: Isolation | None,
    guests: Guests | None,
    *,
    recorded: bool,
) -> SearchResult:
    from cifar_core.training.failures import recorded_end

    with recorded_end(store, search_id), Recorder(store, search_id, None, should_stop) as recorder:
        search = _Search(store, store.get_search(search_id), recorder, progress or _ignore)
        return search.run(dataset, isolation, guests, recorded)


def _ignore(report: SearchProgress) -> None:
    """For a search that nobody listens to."""


def make_trainers(
    config: SearchConfig, dataset: Dataset, folder: Path, isolation: Isolation
) -> list[TrialTrainer]:
    """Those who train the trials of a search, at once; they are given training images only.

    Raises:
        ConfigError: several workers in one process.
    """
    from cifar_core.tuning.process import ProcessTrainer, save_images
    from cifar_core.tuning.trial import Trainer, trial_images

    if isolation == "none" and config.workers > 1:
        raise ConfigError(
            f"workers={config.workers} train in processes of their own: take isolation='process', "
            "or workers=1."
        )
    images = trial_images(trial_config(config), dataset)
    if isolation == "none":
        return [Trainer(config, images, folder)]
    save_images(images, folder)
    return [
        ProcessTrainer(config, folder, trials=TRIALS_PER_PROCESS, environment=environment)
        for environment in worker_environments(config.workers)
    ]


def worker_environments(workers: int) -> list[dict[str, str]]:
    """Which GPU each worker sees: its own where there are enough, else they take turns to share; with one
    worker or no GPU, what this process sees."""
    from cifar_core.base.devices import visible_gpus

    gpus = visible_gpus()
    if workers == 1 or not gpus:
        return [{} for _ in range(workers)]
    sharing = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"} if workers > len(gpus) else {}
    return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)], **sharing} for i in range(workers)]


class _Search:
    """One attempt at a search, from the first proposal, or from where the last attempt ended."""

    def __init__(
        self, store: RunStore, record: SearchRecord, recorder: Recorder, progress: SearchCallback
    ) -> None:
        self.store, self.record, self.recorder, self._progress = store, record, recorder, progress
        self.id, self.config = record.id, record.config
        self.folder: Path = store.artifact_dir(record.id)
        self.rows = {row["trial_id"]: row for row in _rows(store.trials(record.id))}
        self.plan = check_search(self.config)
        self.final_epochs = full_epochs(self.config) if self.config.train_best else 0
        """Epochs of the winner's training that are left."""
        self._failures = 0
        self._running: dict[str, tuple[Proposal, float, float]] = {}
        """Of each trial that is being trained: when it began, and the seconds that it had before."""

    def run(
        self, dataset: Dataset | None, isolation: Isolation | None, guests: Guests | None, recorded: bool
    ) -> SearchResult:
        from cifar_core.training.callbacks import StopRequested

        self._stage("loading data")
        loaded = dataset or self._load()
        self._begin(loaded)
        (self.folder / STOP_FILE).unlink(missing_ok=True)
        try:
            self._trials(loaded, isolation, guests)
            self._require_a_winner()
            run = self._train_best(loaded, recorded) if self.config.train_best else None
        except StopRequested:
            self.store.stopped(self.id, f"stopped on request after {self._status().trials_done} trials")
            return self._result(RunState.STOPPED, None, recorded)
        best, score = self._best()
        self.store.finish_search(
            self.id, best_trial=best, best_score=score, best_run=run.id if run is not None else None
        )
        return self._result(RunState.FINISHED, run, recorded)

    # --- Beginning -----------------------------------------------------------------------------

    def _load(self) -> Dataset:
        from cifar_core.data import load_dataset

        base = trial_config(self.config)
        return load_dataset(base.dataset)

    def _begin(self, dataset: Dataset) -> None:
        self._stage("starting the framework")
        base = trial_config(self.config)
        prepare(base)
        chosen = choice(base)
        from cifar_core.training.environment import environment

        before = self.record.dataset.get("fingerprint")
        if before and before != dataset.fingerprint:
            raise ResumeError(
                f"{self.id} began on other images (fingerprint {before}) than those here "
                f"({dataset.fingerprint}). Point to the same dataset, or start a new search."
            )
        self.store.begin_search(
            self.id,
            environment=environment(precision=chosen.precision, jit=chosen.jit),
            dataset={
                "name": dataset.name,
                "source": dataset.source,
                "origin": dataset.origin,
                "fingerprint": dataset.fingerprint,
            },
            plan=self.plan.to_dict(),
            trials_planned=self.plan.trials,
        )

    # --- Trials --------------------------------------------------------------------------------

    def _trials(self, dataset: Dataset, isolation: Isolation | None, guests: Guests | None) -> None:
        from cifar_core.tuning.process import remove_images
        from cifar_core.tuning.schedule import Schedule

        schedule = Schedule(self.config, list(self.rows.values()))
        try:
            with contextlib.ExitStack() as stack:
                self._until_all_ended(schedule, self._crew(stack, dataset, isolation, guests))
        finally:
            remove_images(self.folder)
            for trial_id in list(self._running):
                # Stopped, or the search itself cannot go on: these are cut, not failed.
                self._end(trial_id, RunState.STOPPED, reason="cut before its end")
        self._discard_checkpoints(schedule)

    def _crew(
        self,
        stack: contextlib.ExitStack,
        dataset: Dataset,
        isolation: Isolation | None,
        guests: Guests | None,
    ) -> Crew:
        """Who trains; let go of as `stack` is closed."""
        from cifar_core.tuning.crew import Alone, Together

        alone = guests is None and self.config.workers == 1
        trainers = make_trainers(
            self.config, dataset, self.folder, isolation or ("none" if alone else "process")
        )
        if alone:
            crew = Alone(trainers[0], self.recorder.stop_requested)
            stack.callback(crew.close)
            return crew
        here = trainers if guests is None or guests.local is None else trainers[: guests.local]
        together = Together(here, self.recorder.stop_requested)
        stack.callback(together.close)
        if guests is not None:
            stack.callback(self._door(guests, dataset, together).close)
        return together

    def _door(self, guests: Guests, dataset: Dataset, crew: Together) -> Door:
        from cifar_core.tuning.remote import Door, read_address
        from cifar_core.tuning.trial import trial_images

        images = trial_images(trial_config(self.config), dataset)
        address = read_address(guests.address)
        door = Door(address, guests.token, self.config, images, self.folder, crew.join)
        host, port = door.address
        self._report("stage", f"workers may come to {host}:{port}", None)
        return door

    def _until_all_ended(self, schedule: Schedule, crew: Crew) -> None:
        while True:
            self._begin_what_can(schedule, crew)
            if not self._running and (crew.idle or schedule.done or self._stopping()):
                return
            ended = crew.wait(self._training)
            if ended is not None:
                self._ended(schedule, ended)

    def _begin_what_can(self, schedule: Schedule, crew: Crew) -> None:
        while crew.idle and not self._stopping():
            self._stage("choosing the next settings")
            proposal = schedule.next()
            if proposal is None:
                return
            self._begin_trial(proposal)
            if schedule.failed(proposal.parent):
                reason = f"Trial {proposal.parent}, which it continues, failed."
                self._end(proposal.trial_id, RunState.FAILED, reason=reason)
                self._after(schedule, proposal, None)
            else:
                crew.start(_order(proposal))

    def _stopping(self) -> bool:
        """Whether no further trial may begin, though some are still being trained.

        Raises:
            StopRequested: none is, or they are not to be waited for.
        """
        from cifar_core.training.callbacks import StopRequested

        after_trial = (self.folder / STOP_FILE).exists()
        if self.recorder.stop_requested() or (after_trial and not self._running):
            raise StopRequested
        return after_trial

    def _ended(self, schedule: Schedule, ended: Ended) -> None:
        """A worker's trial has ended: record it, and tell the schedule."""
        from cifar_core.training.callbacks import StopRequested
        from cifar_core.training.failures import explained
        from cifar_core.tuning.crew import WorkerLeft

        result, proposal = ended.result, self._running[ended.trial_id][0]
        if isinstance(result, WorkerLeft):
            self._end(ended.trial_id, RunState.STOPPED, reason="given back by a worker that left")
            schedule.give_back(proposal)
        elif isinstance(result, Exception) and not isinstance(result, StopRequested | StoreError):
            told = result if isinstance(result, CifarLabError) else explained(result)
            self._end(ended.trial_id, RunState.FAILED, reason=str(told))
            self._after(schedule, proposal, None)
        elif isinstance(result, BaseException):
            raise result
        else:
            self._end(ended.trial_id, RunState.FINISHED, score=result.score, parameters=result.parameters)
            self._after(schedule, proposal, result.score)

    def _end(self, trial_id: str, state: RunState, **values: Any) -> None:
        _, began, before = self._running[trial_id]
        duration = before + time.perf_counter() - began
        self._record(trial_id, state=state, duration_s=duration, **values)
        del self._running[trial_id]

    def _after(self, schedule: Schedule, proposal: Proposal, score: float | None) -> None:
        schedule.end(proposal, score)
        self._discard_checkpoints(schedule)
        self._report("trial", f"trial {proposal.number} ended", proposal.trial_id)
        self._give_up_after_failures(proposal, schedule)

    def _begin_trial(self, proposal: Proposal) -> None:
        slot = proposal.slot
        before = self.rows.get(proposal.trial_id, {}).get("duration_s") or 0.0
        self._record(
            proposal.trial_id,
            state=RunState.RUNNING,
            number=proposal.number,
            settings=proposal.values,
            bracket=slot.bracket if self.config.tuner == "hyperband" else None,
            round=slot.round if self.config.tuner == "hyperband" else None,
            parent=proposal.parent,
            epochs=slot.epochs,
            first_epoch=slot.first_epoch,
            reason="",
            extra={"iteration": slot.iteration},
        )
        self._running[proposal.trial_id] = (proposal, time.perf_counter(), before)
        self._stage(f"trial {proposal.number} of {self.plan.trials}", proposal.trial_id)

    def _training(self, trial_id: str, report: Progress) -> None:
        """A report out of a trial's training."""
        if report.kind == "epoch":
            self.store.record_trial_epoch(self.id, trial_id, report.epoch, report.metrics)
            row = self.rows[trial_id]
            row["epochs_done"] = max(row["epochs_done"], report.epoch - row["first_epoch"])
        self._report("epoch" if report.kind == "epoch" else "step", report.stage, trial_id, report)

    def _record(self, trial_id: str, **values: Any) -> None:
        """Write what is new of a trial to the store, and remember it."""
        self.store.record_trial(self.id, trial_id, **values)
        row = self.rows.setdefault(trial_id, {"trial_id": trial_id, **_NEW_ROW})
        row.update(values)

    def _give_up_after_failures(self, proposal: Proposal, schedule: Schedule) -> None:
        row = self.rows[proposal.trial_id]
        if row["state"] is not RunState.FAILED:
            self._failures = 0
        elif not schedule.failed(proposal.parent):  # what continues a failed trial is no failure of its own
            self._failures += 1
        if self._failures >= MOST_FAILURES:
            raise TrainingError(
                f"{MOST_FAILURES} trials in a row failed; the search was ended. The last one said: "
                f"{row['reason']} "
                "Narrow the space or change what all trials share, and start a new search."
            )

    def _discard_checkpoints(self, schedule: Schedule) -> None:
        """Keep only the checkpoints of trials that may still be continued: those that can be promoted,
        and those that have not ended, with the ones that they go on from."""
        keep = schedule.promotable()
        for row in self.rows.values():
            if row["state"] not in ENDED:
                keep |= {row["trial_id"], row["parent"]}
        for path in self.folder.glob("trial-*.npz*"):
            if path.name.removeprefix("trial-").partition(".npz")[0] not in keep:
                path.unlink(missing_ok=True)

    # --- The winner ----------------------------------------------------------------------------

    def _best(self) -> tuple[str | None, float | None]:
        """The trial with the highest score; of equals the earliest."""
        finished = [row for row in self.rows.values() if row["state"] is RunState.FINISHED]
        if not finished:
            return None, None
        best = max(finished, key=lambda row: (row["score"], -row["number"]))
        return best["trial_id"], best["score"]

    def _best_config(self) -> TrainConfig | None:
        best, _ = self._best()
        return None if best is None else tuned_config(self.config, self.rows[best]["settings"])

    def _require_a_winner(self) -> None:
        if self._best()[0] is None:
            reasons = {row["reason"] for row in self.rows.values()}
            raise TrainingError(f"No trial of the search completed. They said: {' '.join(sorted(reasons))}")

    def _train_best(self, dataset: Dataset, recorded: bool) -> Run:
        """The winner's settings trained in full, as an ordinary run that is linked to the search."""
        from cifar_core.training.callbacks import StopRequested
        from cifar_core.training.run import resume, train

        self._stage("training the winner in full")
        config = self._best_config()
        assert config is not None
        options: dict[str, Any] = {
            "dataset": dataset,
            "progress": self._final_training,
            "should_stop": self.recorder.stop_requested,
        }
        if not recorded:
            run = train(config, **options)
        else:
            run_id = self._final_run(config)
            if self.store.get(run_id).state is RunState.FINISHED:
                return _recorded_run(self.store, run_id)
            run = resume(run_id, store=self.store, **options)
        if run.state is not RunState.FINISHED:
            raise StopRequested
        return run

    def _final_training(self, report: Progress) -> None:
        if report.kind == "epoch":
            self.final_epochs = report.epochs - report.epoch
            self.store.record_search(self.id, eta_s=self._status().eta_s)
        self._report("final", report.stage, None, report)

    def _final_run(self, config: TrainConfig) -> str:
        """The winner's run: the one that an earlier attempt began, or a new one."""
        self.store.reap()
        runs = self.store.runs()
        mine = runs[runs["search_id"] == self.id]
        if len(mine):
            return str(mine.iloc[0]["id"])
        run_id = self.store.create_run(config, search_id=self.id)
        self.store.record_search(self.id, best_run=run_id)
        return run_id

    # --- Telling -------------------------------------------------------------------------------

    def _status(self) -> SearchStatus:
        rows = list(self.rows.values())
        return status(self.plan, rows, final_epochs=self.final_epochs, workers=self.config.workers)

    def _stage(self, text: str, trial_id: str | None = None) -> None:
        self.recorder.stage(text)
        self._report("stage", text, trial_id)

    def _report(self, kind: Any, stage: str, trial_id: str | None, training: Progress | None = None) -> None:
        now, (best, score) = self._status(), self._best()
        if kind in ("epoch", "trial"):
            self.store.record_search(self.id, eta_s=now.eta_s, best_trial=best, best_score=score)
        self._progress(SearchProgress(kind, stage, trial_id, now, best, score, training))

    def _result(self, state: RunState, run: Run | None, recorded: bool) -> SearchResult:
        best, score = self._best()
        trials = self.store.trials(self.id)
        return SearchResult(
            self.id if recorded else None, state, trials, best, score, self._best_config(), run
        )


def _order(proposal: Proposal) -> Order:
    slot = proposal.slot
    return Order(proposal.trial_id, proposal.values, slot.first_epoch, slot.epochs, proposal.parent)


_NEW_ROW = {"epochs_done": 0, "duration_s": None, "score": None, "reason": None, "parent": None}


def _rows(trials: pd.DataFrame) -> list[dict[str, Any]]:
    """The store's trials as plain values, None where one is missing."""
    import pandas as pd

    whole = ("number", "epochs", "first_epoch", "epochs_done")
    rows = []
    for row in trials.to_dict("records"):
        values = {name: None if not isinstance(v, dict) and pd.isna(v) else v for name, v in row.items()}
        values |= {name: int(values[name] or 0) for name in whole}
        rows.append({**values, "state": RunState(values["state"])})
    return rows


def _recorded_run(store: RunStore, run_id: str) -> Run:
    """A finished run as the store knows it, without its model in memory."""
    from cifar_core.analysis.metrics import Report
    from cifar_core.training.result import Run

    record = store.get(run_id)
    return Run(
        config=record.config,
        state=record.state,
        epochs=store.history(run_id).to_dict("records"),
        report=Report.from_dict(record.metrics or {}),
        environment=record.environment,
        best_epoch=(record.metrics or {}).get("best_epoch", 0),
        id=run_id,
        folder=store.artifact_dir(run_id),
    )
