"""One attempt at a search: propose, train, record, promote, stop, continue, and train the winner in full.

The store's table of trials is the search's only memory. A search that was stopped or killed is continued by
replaying the recorded trials to a new oracle (`schedule.Schedule`). Only interrupted trials are repeated,
from their last completed epoch.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cifar_core.base.devices import visible_gpus
from cifar_core.data import Dataset, load_dataset
from cifar_core.errors import CifarLabError, ConfigError, ResumeError, StoreError, TrainingError
from cifar_core.settings.compute import choice, set_variables
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig
from cifar_core.store import RunState, RunStore, SearchRecord
from cifar_core.store.records import DONE
from cifar_core.training.environment import environment
from cifar_core.training.failures import explained
from cifar_core.training.optimizers import RULES
from cifar_core.training.recorder import Progress, Recorder, StopRequested
from cifar_core.tuning.local_workers import ProcessTrainer, TrainerPool, TrialEnd, TrialTrainer
from cifar_core.tuning.plan import SearchStatus, make_plan, status, taken_epochs
from cifar_core.tuning.results import Isolation, ReportKind, SearchOptions, SearchProgress, SearchResult
from cifar_core.tuning.space import check_space, full_epochs, trial_config, tuned_config
from cifar_core.tuning.trial import Order, Trainer, remove_images, trial_images
from cifar_core.tuning.winner import train_winner

if TYPE_CHECKING:
    from cifar_core.training.result import Run
    from cifar_core.tuning.oracle import Proposal
    from cifar_core.tuning.schedule import Schedule

MAX_FAILURES = 3
"""Number of consecutive failed trials that ends a search."""
STOP_FILE = "stop-after-trial"


def make_trainers(
    config: SearchConfig, dataset: Dataset, folder: Path, isolation: Isolation
) -> list[TrialTrainer]:
    """One trainer per local worker of the search; they are given training images only.

    Raises:
        ConfigError: several workers in one process.
    """
    if isolation == "none" and config.workers > 1:
        raise ConfigError(
            f"workers={config.workers} requires worker processes: use isolation='process', or workers=1."
        )
    images = trial_images(trial_config(config), dataset)
    if isolation == "none":
        return [Trainer(config, images, folder)]
    images.save(folder)
    environments = worker_environments(config.workers)
    return [ProcessTrainer(config, folder, environment) for environment in environments]


def worker_environments(workers: int) -> list[dict[str, str]]:
    """Environment variables per worker that select its GPU; workers share GPUs in turn if there are too few.

    Empty for a single worker or without a GPU: the worker then sees what this process sees.
    """
    gpus = visible_gpus()
    if workers == 1 or not gpus:
        return [{}] * workers
    sharing = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"} if workers > len(gpus) else {}
    return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)], **sharing} for i in range(workers)]


class _Running(NamedTuple):
    """A trial in training: when it began (`time.perf_counter`), and its seconds in earlier attempts."""

    proposal: Proposal
    began: float
    before: float


class SearchAttempt:
    """One attempt at a search that this process has claimed, from its beginning or the last interruption."""

    def __init__(
        self, store: RunStore, record: SearchRecord, recorder: Recorder, options: SearchOptions
    ) -> None:
        self.store, self.record, self.recorder, self.options = store, record, recorder, options
        self.id, self.config = record.id, record.config
        self.folder: Path = store.artifact_dir(record.id)
        self.rows = {row["trial_id"]: row for row in store.live_search(record.id)[0].trials}
        check_space(self.config)
        self.plan = make_plan(self.config, taken_epochs(self.rows.values()))
        self.final_epochs = full_epochs(self.config) if self.config.train_best else 0
        """Remaining epochs of the winner's training."""
        self.compute: dict[str, Any] = {}
        """How all trials are computed, decided when the search began."""
        self._failures = 0
        self._running: dict[str, _Running] = {}

    def run(self) -> SearchResult:
        self._stage("loading data")
        dataset = self.options.dataset or load_dataset(trial_config(self.config).dataset)
        self._begin(dataset)
        (self.folder / STOP_FILE).unlink(missing_ok=True)
        try:
            self._run_trials(dataset)
            run = self._train_winner(dataset)
        except StopRequested:
            self.store.stopped(self.id, f"stopped on request after {self._status().trials_done} trials")
            return self._result(RunState.STOPPED, None)
        best, score = self._best()
        best_run = run.id if run is not None else None
        self.store.finish_search(self.id, best_trial=best, best_score=score, best_run=best_run)
        return self._result(RunState.FINISHED, run)

    def _begin(self, dataset: Dataset) -> None:
        self._stage("starting the framework")
        chosen = choice(trial_config(self.config), self.record.environment)
        elsewhere = self.options.elsewhere is not None  # then the framework is only asked what to try
        set_variables(replace(chosen, onednn=None) if elsewhere else chosen)
        before = self.record.dataset.get("fingerprint")
        if before and before != dataset.fingerprint:
            raise ResumeError(
                f"{self.id} began with other images (fingerprint {before}) than the ones given now "
                f"({dataset.fingerprint}). Point to the same dataset, or start a new search."
            )
        self.compute = environment(precision=chosen.precision, jit=chosen.jit)
        if elsewhere and self.compute["onednn"] == "default":
            self.compute["onednn"] = chosen.kernels
        recorded = self.record.environment
        self.compute["rules"] = recorded.get("rules", 1) if recorded else RULES
        self.store.begin_search(
            self.id,
            environment=self.compute,
            dataset={name: getattr(dataset, name) for name in ("name", "source", "origin", "fingerprint")},
            plan=self.plan.to_dict(),
            trials_planned=self.plan.trials,
        )

    def _run_trials(self, dataset: Dataset) -> None:
        from cifar_core.tuning.schedule import Schedule

        schedule = Schedule(self.config, list(self.rows.values()))
        try:
            with contextlib.ExitStack() as stack:
                pool = self._pool(stack, dataset)
                while self._start_trials(schedule, pool):
                    self._trial_ended(schedule, pool.wait(self._report_training))
        finally:
            remove_images(self.folder)
            self.store.sweep(self.id)  # a worker process killed while it wrote a checkpoint left a part of it
            for trial_id in list(self._running):
                # The search was stopped or cannot continue: these trials are interrupted, not failed.
                self._end(trial_id, RunState.STOPPED, reason="interrupted")
        self._discard_checkpoints(schedule)
        self._correct_plan(schedule)

    def _correct_plan(self, schedule: Schedule) -> None:
        """Record what no plan knows of a continuous or very large space: how many of the settings drawn were
        impossible, and that the tuner found no further one."""
        plan = self.plan
        if plan.impossible is None:
            plan = replace(plan, impossible=schedule.left_out)
        if len(self.rows) < plan.trials and self.config.tuner != "hyperband":
            plan = plan.of_trials(len(self.rows), self.config.max_epochs, taken_epochs(self.rows.values()))
        if plan != self.plan:
            self.plan = plan
            self.store.record_search(self.id, plan=plan.to_dict(), trials_planned=plan.trials)

    def _pool(self, stack: contextlib.ExitStack, dataset: Dataset) -> TrainerPool:
        """The trainers of this attempt, which are released when `stack` is closed."""
        elsewhere = self.options.elsewhere
        if elsewhere is not None:
            images = trial_images(trial_config(self.config), dataset)
            trainers = elsewhere.trainers(self.config, images, self.folder)
        else:
            isolation = self.options.isolation or ("none" if self.config.workers == 1 else "process")
            trainers = make_trainers(self.config, dataset, self.folder, isolation)
        pool = TrainerPool(trainers, self.recorder.stop_requested)
        stack.callback(pool.close)
        return pool

    def _start_trials(self, schedule: Schedule, pool: TrainerPool) -> bool:
        """Start every trial that can start now. False once none is running and none will start."""
        while pool.idle and not self._stopping():
            self._stage("choosing the next settings")
            proposal = schedule.next()
            if proposal is None:
                break
            self._begin_trial(proposal)
            if schedule.failed(proposal.parent):
                reason = f"Trial {proposal.parent}, which it continues, failed."
                self._end(proposal.trial_id, RunState.FAILED, reason=reason)
                self._after(schedule, proposal, None)
            else:
                epochs = proposal.slot.first_epoch, proposal.slot.epochs
                pool.start(Order(proposal.trial_id, proposal.values, *epochs, proposal.parent, self.compute))
        return bool(self._running)

    def _stopping(self) -> bool:
        """Whether no further trial may start, although some are still running.

        Raises:
            StopRequested: none is running, or they are to be stopped too.
        """
        after_trial = (self.folder / STOP_FILE).exists()
        if self.recorder.stop_requested() or (after_trial and not self._running):
            raise StopRequested
        return after_trial

    def _begin_trial(self, proposal: Proposal) -> None:
        slot, hyperband = proposal.slot, self.config.tuner == "hyperband"
        before = self.rows.get(proposal.trial_id, {}).get("duration_s") or 0.0
        self._record(
            proposal.trial_id,
            state=RunState.RUNNING,
            number=proposal.number,
            settings=proposal.values,
            bracket=slot.bracket if hyperband else None,
            round=slot.round if hyperband else None,
            parent=proposal.parent,
            epochs=slot.epochs,
            first_epoch=slot.first_epoch,
            reason="",
            extra={"iteration": slot.iteration},
        )
        self._running[proposal.trial_id] = _Running(proposal, time.perf_counter(), before)
        self._stage(f"trial {proposal.number} of {self.plan.trials}", proposal.trial_id)

    def _trial_ended(self, schedule: Schedule, ended: TrialEnd) -> None:
        """Record the end of a worker's trial, and tell the schedule."""
        result, proposal = ended.result, self._running[ended.trial_id].proposal
        if isinstance(result, Exception) and not isinstance(result, StopRequested | StoreError):
            error = result if isinstance(result, CifarLabError) else explained(result)
            self._end(ended.trial_id, RunState.FAILED, reason=str(error))
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
        row = self.rows[proposal.trial_id]
        if row["state"] != RunState.FAILED:
            self._failures = 0
        elif not schedule.failed(proposal.parent):  # the continuation of a failed trial does not count
            self._failures += 1
        if self._failures >= MAX_FAILURES:
            raise TrainingError(
                f"{MAX_FAILURES} trials in a row failed, so the search was ended. The last one failed with: "
                f"{row['reason']} Narrow the space or change what all trials share, and start a new search."
            )

    def _report_training(self, trial_id: str, report: Progress) -> None:
        if report.kind == "epoch":
            self.store.record_trial_epoch(self.id, trial_id, report.epoch, report.metrics)
            row = self.rows[trial_id]
            row["epochs_done"] = max(row["epochs_done"], report.epoch - row["first_epoch"])
        self._report("epoch" if report.kind == "epoch" else "step", report.stage, trial_id, report)

    def _record(self, trial_id: str, **values: Any) -> None:
        """Write new values of a trial to the store and to `rows`."""
        self.store.record_trial(self.id, trial_id, **values)
        self.rows.setdefault(trial_id, {**_NEW_ROW, "trial_id": trial_id}).update(values)

    def _discard_checkpoints(self, schedule: Schedule) -> None:
        """Delete the checkpoints (and a killed worker's half-written ones) that no trial will continue.

        Kept are those of trials that can be promoted, and those of unfinished trials and their parents.
        """
        keep = schedule.promotable()
        for row in self.rows.values():
            if row["state"] not in DONE:
                keep |= {row["trial_id"], row["parent"]}
        for path in self.folder.glob("*trial-*.npz"):
            if path.stem.rpartition("trial-")[2] not in keep:
                path.unlink(missing_ok=True)

    def _best(self) -> tuple[str | None, float | None]:
        """Id and score of the finished trial with the highest score; the earliest of equals."""
        finished = [row for row in self.rows.values() if row["state"] == RunState.FINISHED]
        best = max(finished, key=lambda row: (row["score"], -row["number"]), default=_NEW_ROW)
        return best["trial_id"], best["score"]

    def _best_config(self) -> TrainConfig | None:
        best, _ = self._best()
        return None if best is None else tuned_config(self.config, self.rows[best]["settings"])

    def _train_winner(self, dataset: Dataset) -> Run | None:
        config = self._best_config()
        if config is None:
            reasons = " ".join(sorted({row["reason"] for row in self.rows.values()}))
            raise TrainingError(f"No trial of the search completed. Reasons: {reasons}")
        if not self.config.train_best:
            return None
        self._stage("training the winner in full")
        return train_winner(
            self.store,
            self.id,
            config,
            recorded=self.options.recorded,
            elsewhere=self.options.elsewhere,
            dataset=dataset,
            progress=self._report_winner,
            should_stop=self.recorder.stop_requested,
        )

    def _report_winner(self, report: Progress) -> None:
        if report.kind == "epoch":
            self.final_epochs = report.epochs - report.epoch
            self.store.record_search(self.id, eta_s=self._status().eta_s)
        self._report("final", report.stage, None, report)

    def _status(self) -> SearchStatus:
        rows, workers = list(self.rows.values()), self.config.workers
        return status(self.plan, rows, final_epochs=self.final_epochs, workers=workers)

    def _stage(self, text: str, trial_id: str | None = None) -> None:
        self.recorder.stage(text)
        self._report("stage", text, trial_id)

    def _report(
        self, kind: ReportKind, stage: str, trial_id: str | None, training: Progress | None = None
    ) -> None:
        now, (best, score) = self._status(), self._best()
        if kind in ("epoch", "trial"):
            self.store.record_search(self.id, eta_s=now.eta_s, best_trial=best, best_score=score)
        if self.options.progress is not None:
            self.options.progress(SearchProgress(kind, stage, trial_id, now, best, score, training))

    def _result(self, state: RunState, run: Run | None) -> SearchResult:
        best, score = self._best()
        known, trials = self.id if self.options.recorded else None, self.store.trials(self.id)
        left_out = self.plan.impossible or 0
        return SearchResult(
            known, state, trials, self._status(), left_out, best, score, self._best_config(), run
        )


_NEW_ROW: dict[str, Any] = {"trial_id": None, "epochs_done": 0} | dict.fromkeys(
    ("duration_s", "score", "reason", "parent")
)
