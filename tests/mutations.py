"""Mutation check: small faults are put into the code one at a time, and the named tests must fail.

    python tests/mutations.py                  # all of them; exit status 1 if one is missed
    python tests/mutations.py plan access      # only those whose place or code contains one of these texts
    python tests/mutations.py --jobs 2         # that many at once
    python tests/mutations.py --list           # what there is, without running anything

Each mutation replaces one expression, which must occur exactly once in its file (or folder), in a temporary
copy of the checkout. The named test files must pass there without a mutation, and fail with it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

CHECKOUT = Path(__file__).parents[1]
COPIED = ("cifar_core", "pages", "tests", "docs", "app.py", "pyproject.toml", ".streamlit")
TIMEOUT_S = 600.0
"""Seconds after which a test run counts as failed: a mutation may make it wait for ever."""

KINDS = "not faults and not browser"
"""Marker expression of the tests that are run, slow ones included."""
PASSED, FAILED = 0, 1
"""Exit statuses of pytest; any other means that the tests could not be run."""


@dataclass(frozen=True)
class Mutation:
    """One fault: `old` becomes `new` in `place` (a file or a folder); the test files `tests` must notice."""

    place: str
    old: str
    new: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place}: {self.old}  ->  {self.new}"


def _mutations(place: str, tests: str, *pairs: tuple[str, str]) -> Iterator[Mutation]:
    for old, new in pairs:
        yield Mutation(place, old, new, tuple(tests.split()))


MUTATIONS: tuple[Mutation, ...] = (
    *_mutations(
        "cifar_core/analysis/metrics.py",
        "tests/analysis/test_metrics.py",
        ("order[:, :2] == labels", "order[:, :3] == labels"),
        ('gap * filled["count"]', "gap"),
        ("edges[1:-1], right=True", "edges[1:-1], right=False"),
        ("_ratio(2 * hits, support + taken)", "_ratio(hits, support + taken)"),
        ("_ratio(hits, taken)", "_ratio(hits, taken + support)"),
        ("-np.log(likelihood)", "-np.log2(likelihood)"),
        ("self.n - np.trace(self.confusion)", "np.trace(self.confusion)"),
        ("array.max() >= count", "array.max() > count"),
    ),
    *_mutations(
        "cifar_core/analysis/statistics.py",
        "tests/analysis/test_statistics.py",
        ("ways * (n - k) // (k + 1)", "ways * (n - k - 1) // (k + 1)"),
        ("2 * total / 2**n", "total / 2**n"),
        ("[(1 - level) / 2, (1 + level) / 2]", "[1 - level, level]"),
        ("array.std(ddof=1)", "array.std(ddof=0)"),
        ("np.array([1, -1, 0])", "np.array([-1, 1, 0])"),
        ("leader, rank = row, place", "leader, rank = row, place + 1"),
    ),
    *_mutations(
        "cifar_core/training/optimizers.py",
        "tests/training/test_optimizers.py",
        ("peak * ONE_CYCLE_START", "peak"),
        ("config.min_learning_rate / peak", "config.min_learning_rate"),
        ("ONE_CYCLE_RISE * total", "ONE_CYCLE_RISE * total / 2"),
        ("max(1, total - warmup)", "max(1, total)"),
    ),
    *_mutations(
        "cifar_core/training/batches/batch.py",
        "tests/training/test_batches.py",
        ("-(-n // batch_size)", "n // batch_size"),
        ("-n % config.batch_size", "n % config.batch_size"),
        ("+ config.label_smoothing / classes", "+ config.label_smoothing"),
    ),
    *_mutations(
        "cifar_core/training/augmentation/mixing.py",
        "tests/training/test_augment.py",
        ("line < high[:, :1]", "line <= high[:, :1]"),
        ("other + (images - other) * blend", "images + (other - images) * blend"),
        ("other_targets + (targets - other_targets) * share", "targets + (other_targets - targets) * share"),
    ),
    *_mutations(
        "cifar_core/training/augmentation/geometry.py",
        "tests/training/test_augment.py tests/training/test_draws.py",
        ("(side - 1) / 2", "side / 2"),
        ("-1 - index", "-index"),
        ("2 * side - 1 - index", "2 * side - 2 - index"),
        ("tx * cos - ty * sin", "tx * cos + ty * sin"),
    ),
    *_mutations(
        "cifar_core/training/augmentation/draws.py",
        "tests/training/test_draws.py",
        ('streams["flip"].random(n) < 0.5', 'streams["flip"].random(n) < 0.9'),
        ("(config.seed, epoch, _PLAN)", "(config.seed, _PLAN)"),
    ),
    *_mutations(
        "cifar_core/store",
        "tests/store/test_store_lifecycle.py",
        ("instant - since >", "instant - since <"),
        ("self not in UNFINISHED", "self not in ACTIVE"),
        ('wanted & set(names.split(","))', 'wanted == set(names.split(","))'),
        ("order_by(waiting.c.queued_at, waiting.c.id)", "order_by(waiting.c.queued_at.desc())"),
        ("table.c.attempt + 1", "table.c.attempt"),
        ("len(ids) > 1", "len(ids) > 2"),
        ("(row.duration_s or 0.0) + seconds_between", "seconds_between"),
    ),
    *_mutations(
        "cifar_core/store/leaderboard.py",
        "tests/store/test_store_leaderboard.py",
        ("stdev(accuracies) if", "stdev([*accuracies, 0.5]) if"),
        ('-row["accuracy"]', 'row["accuracy"]'),
        ("enumerate(ordered, 1)", "enumerate(ordered, 0)"),
    ),
    *_mutations(
        "cifar_core/tuning/plan.py",
        "tests/tuning/test_plan.py",
        ("number <= item.trials", "number < item.trials"),
        ("self.settings - (self.impossible or 0)", "self.settings"),
        ("end_size / (bracket + 1)", "end_size / (bracket + 2)"),
        ("seconds / trained * left", "seconds / trained * plan.epochs"),
        ("plan.epochs - spared - trained", "plan.epochs - trained"),
    ),
    *_mutations(
        "cifar_core/tuning/plan.py",
        "tests/tuning/test_cost.py",
        ("plan.trials * TRIAL_SECONDS", "TRIAL_SECONDS"),
        ("trials / together, full", "trials, full"),
    ),
    *_mutations(
        "cifar_core/tuning/space.py",
        "tests/tuning/test_space.py",
        ("max(shared, config.max_epochs)", "shared"),
        ("math.log2(high / low) + 1e-9", "math.log2(high / low) - 1"),
        ("np.geomspace if self.log else np.linspace", "np.linspace"),
        ('base.protocol != "held-out"', "False"),
    ),
    *_mutations(
        "cifar_core/tuning/oracle.py",
        "tests/tuning/test_oracle.py",
        ("1 + config.seed * _STREAM", "1 + config.seed"),
        ("_WORST = -1.0", "_WORST = 1.0"),
        ("possible = not self._problem_of(values)", "possible = True"),
        ("if not self._duplicate(values) and self._possible(values)", "if self._possible(values)"),
    ),
    *_mutations(
        "cifar_core/tuning/schedule.py",
        "tests/tuning/test_schedule.py",
        ("left[: len(following) - len(children)]", "left[: len(following) - len(children) - 1]"),
        ("pairwise([range(0), *rounds])", "pairwise([range(0), range(0), *rounds[1:]])"),
    ),
    *_mutations(
        "cifar_core/tuning/importance.py",
        "tests/tuning/test_importance.py",
        ("mean / (whole or 1.0)", "mean"),
        ('finished["epochs"].to_numpy(float)', 'finished["epochs"].to_numpy(float) * 0'),
    ),
    *_mutations(
        "cifar_core/tuning/attempt.py",
        "tests/tuning/test_search.py",
        ('path.stem.rpartition("trial-")[2] not in keep', 'path.stem.rpartition("trial-")[2] in keep'),
        ('(row["score"], -row["number"])', '(-row["score"], -row["number"])'),
        ("self._failures >= MAX_FAILURES", "self._failures > MAX_FAILURES"),
        ("before != dataset.fingerprint", "before is None"),
    ),
    *_mutations(
        "cifar_core/tuning/trial.py",
        "tests/tuning/test_trial.py",
        ("progressed.history[order.first_epoch :]", "progressed.history"),
    ),
    *_mutations(
        "cifar_core/workers/cluster/driver.py",
        "tests/cluster/test_driver.py",
        (
            '[*self._first, *self.store.waiting("any", cluster=True)]',
            '[*self.store.waiting("any", cluster=True), *self._first]',
        ),
        ("self._first.remove(task)", "pass"),
        ("if worker.lease.node.id not in there:", "if False:"),
    ),
    *_mutations(
        "cifar_core/workers/cluster/driver.py",
        "tests/cluster/test_together.py",
        ("if len(places) < task.workers", "if not places"),
        ("if together and error and", "if together and not error and"),
        (
            "for worker in job.workers if not job.messages",
            "for worker in job.workers[:1] if not job.messages",
        ),
        ("if not job.messages and worker.error is None", "if not job.messages and worker is job.leader"),
    ),
    *_mutations(
        "cifar_core/workers/cluster/jobs.py",
        "tests/cluster/test_together.py",
        ("take = pool.start if together else pool.take", "take = pool.take"),
        ('"KERAS_BACKEND": keras_backend(), ', ""),
        ('{**needs, "GPU": max(1.0, gpus)} if gpus else dict(needs)', "dict(needs)"),
        ("any(fits(node.resources, whole) for node in nodes)", "not nodes"),
    ),
    *_mutations(
        "cifar_core/workers/cluster/tasks.py",
        "tests/cluster/test_driver.py",
        ("return state is RunState.STOPPING", "return state is RunState.FAILED"),
    ),
    *_mutations(
        "cifar_core/workers/cluster/losses.py",
        "tests/cluster/test_driver.py",
        (">= MAX_LOSSES", "> MAX_LOSSES"),
        ("== LOST,", "!= '',"),
    ),
    *_mutations(
        "cifar_core/base/processes.py",
        "tests/cluster/test_driver.py",
        ("now > MAX_GROWTH * self.first", "now > self.first"),
        ("self.first = self.first or now", "self.first = now"),
    ),
    *_mutations(
        "pages/shared/access.py",
        "tests/pages/test_access.py",
        ("self in (Role.OWNER, Role.LAUNCH)", "self is not Role.STRANGER"),
        ("return pressed and allowed", "return pressed"),
        ('verified not in (True, "true")', "False"),
        ("entry in (ANYBODY, address, domain)", "entry in (ANYBODY, address)"),
        ('entry == ANYBODY and name == "may_launch"', "False"),
        ('parts.scheme != "https"', "False"),
        ("known.role(st.user) if known.shared else known.role({})", "known.role({})"),
        ("disabled or not allowed", "disabled"),
    ),
    # Faults of earlier releases, put back.
    *_mutations(
        "cifar_core/store/leaderboard.py",
        "tests/store/test_store_leaderboard.py",
        ("runs = [run for run in group if first[run.seed] is run]", "runs = group"),
        ('"protocol", "train_images", "test_images")', '"protocol")'),
        ('(*_VARIANT, "settings_key", "parameters")', "_VARIANT"),
        ("max(settings, key=_suitability)", 'max(settings, key=itemgetter("accuracy"))'),
    ),
    *_mutations(
        "cifar_core/training/images.py",
        "tests/training/test_run_images.py",
        ("config.seed, test_seed)", "config.seed, config.seed)"),
    ),
    *_mutations(
        "cifar_core/store/artifacts.py",
        "tests/store/test_store_artifacts.py",
        ("= probabilities.astype(np.float32)", "= probabilities.astype(np.float16)"),
        ("if predicted is None:\n        predicted", "if True:\n        predicted"),
    ),
    *_mutations(
        "cifar_core/tuning/trial.py",
        "tests/tuning/test_trial.py",
        ("self.images.train[0]), order.compute)", "self.images.train[0]), {})"),
    ),
    *_mutations(
        "cifar_core/settings/compute.py",
        "tests/settings/test_compute.py",
        ("_by_rule(config), recorded or {})", "_by_rule(config), {})"),
    ),
    *_mutations(
        "cifar_core/training",
        "tests/training/test_averaging.py tests/training/test_optimizers.py",
        ("kind = with_average(kind)", "pass"),
        (
            "self._own, self.weights = _arrays(self.model.weights), kept_weights(self.model, self.images)",
            "self._own, self.weights = _arrays(self.model.weights), _arrays(self.model.weights)",
        ),
        ("for batch in _batches(images) if layers else ():", "for batch in ():"),
        ("peak / (warmup + 1) if rules > 1 else 0.0", "0.0"),
        ('config.optimizer == "adam" and rules > 1', "False"),
    ),
    *_mutations(
        "cifar_core/training/callbacks.py",
        "tests/training/test_callbacks.py",
        ("step = self._epoch * self.steps + batch", "step = self._epoch * self.steps + batch + 1"),
        ("first * self.config.batch_size", "0"),
        ("None or not timed", "None and not timed"),
    ),
    *_mutations(
        "cifar_core/tuning",
        "tests/tuning/test_importance.py",
        ("* (fit > noise)", ""),
    ),
    *_mutations(
        "cifar_core/tuning",
        "tests/tuning/test_plan.py tests/tuning/test_oracle.py tests/tuning/test_search.py",
        ("min(config.max_trials, plan.possible)", "config.max_trials"),
    ),
    *_mutations(
        "cifar_core/analysis",
        "tests/analysis/test_tuned.py tests/analysis/test_comparison.py tests/analysis/test_evaluation.py",
        ('rows[same_images(rows, board) & (rows["settings_key"]', 'rows[(rows["settings_key"]'),
        ("1000 * quickest[0]", "1000 * rounds[0]"),
    ),
    *_mutations(
        "cifar_core/data",
        "tests/data/test_data_foreign.py",
        ("if size < least]", "if size < 0]"),
        (
            "except UnsafePickleError:\n            raise\n        except DataError as error:  # the next",
            "except DataError as error:\n            raise\n        except KeyError as error:  # the next",
        ),
        ("unsafe=not _is_garbled(module, name))\n        return", "unsafe=True)\n        return"),
        ("if type(labels) is np.ndarray and", "if False and"),
        ("_LEVELS = 2", "_LEVELS = 0"),
        ("if override is None or", "if True or"),
        ("        if other != name:\n            place", "        if False:\n            place"),
    ),
    *_mutations(
        "cifar_core/base/paths.py",
        "tests/data/test_data_foreign.py",
        ("plain = given.strip(_AROUND)", "plain = given"),
        ('if plain.lower().startswith("file:/"):', "if False:"),
    ),
    *_mutations(
        "cifar_core/data/images.py",
        "tests/serving/test_images.py",
        ("ImageOps.exif_transpose(image, in_place=True)", "pass"),
        ("        image.draft(None, (least, least) if least else (width // 8, height // 8))", "        pass"),
        ('brand in brands for brand in (b"hei"', 'brand in brands for brand in (b"heix"'),
    ),
    *_mutations(
        "cifar_core/store",
        "tests/store/test_damage.py tests/store/test_store_lifecycle.py",
        ('"is full" if disk_is_full(file) else sign', "sign"),
        ("if inode != self._inode:", "if False:"),
        ("if damaged and owner is not None:", "if False:"),
        ("if not isinstance(value, dict) and not (value is None", "if False and not (value is None"),
    ),
    *_mutations(
        "cifar_core/base/csv_text.py",
        "tests/hostile/test_hostile_csv.py",
        (r"(^|[;\t\n])(?=", "(^)(?="),
        (r'[,;\t"\n]', r'[,"\n]'),
    ),
)


class Checkout:
    """A temporary copy of the checkout in which one mutation at a time is applied."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            source = CHECKOUT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy2(source, folder / name)
        self._instants = itertools.count(int(time.time()) - 10_000_000)

    @contextmanager
    def mutated(self, mutation: Mutation) -> Iterator[None]:
        """Apply a mutation for the block. Raises ValueError if its text is not there exactly once."""
        place = self.folder / mutation.place
        texts = {
            path: path.read_text("utf-8") for path in (place.rglob("*.py") if place.is_dir() else [place])
        }
        count = sum(text.count(mutation.old) for text in texts.values())
        if count != 1:
            raise ValueError(f"found {count} times")
        path, text = next((path, text) for path, text in texts.items() if mutation.old in text)
        try:
            self._write(path, text.replace(mutation.old, mutation.new))
            yield
        finally:
            self._write(path, text)

    def test(self, files: Iterable[str]) -> int:
        """Exit status of pytest for these test files."""
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-n",
            "0",
            "-m",
            KINDS,
            "-p",
            "no:cacheprovider",
        ]
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            return subprocess.run(
                [*command, *files], cwd=self.folder, env=environment, timeout=TIMEOUT_S, **quiet
            ).returncode
        except subprocess.TimeoutExpired:
            return FAILED

    def _write(self, path: Path, text: str) -> None:
        """Write with a new modification time, by which Python decides whether compiled code is outdated."""
        path.write_text(text, encoding="utf-8")
        instant = next(self._instants)
        os.utime(path, (instant, instant))


def check(mutation: Mutation, checkouts: Queue[Checkout]) -> str:
    """ "caught", or what is wrong, in words."""
    checkout = checkouts.get()
    try:
        with checkout.mutated(mutation):
            status = checkout.test(mutation.tests)
    except (OSError, ValueError) as error:
        return f"INVALID: the text to replace was {error}"
    finally:
        checkouts.put(checkout)
    return {FAILED: "caught", PASSED: "MISSED"}.get(status, f"INVALID: pytest exited with status {status}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Put small faults into the code; tests must notice each.")
    parser.add_argument("texts", nargs="*", help="only mutations whose place or code contains one of these")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once (default 1)")
    parser.add_argument("--list", action="store_true", help="list the mutations and exit")
    asked = parser.parse_args()
    chosen = [m for m in MUTATIONS if not asked.texts or any(text in str(m) for text in asked.texts)]
    if asked.list:
        print(*chosen, sep="\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="cifar-lab-mutations-") as folder:
        return _run(chosen, [Checkout(_made(Path(folder) / str(number))) for number in range(asked.jobs)])


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _run(chosen: list[Mutation], copies: list[Checkout]) -> int:
    files = sorted({name for mutation in chosen for name in mutation.tests})
    if chosen and copies[0].test(files) != PASSED:
        print(f"The tests fail, or can't be run, without a mutation: {' '.join(files)}")
        return 1
    checkouts: Queue[Checkout] = Queue()
    for copy in copies:
        checkouts.put(copy)
    wrong, lock = 0, threading.Lock()

    def work(mutation: Mutation) -> None:
        nonlocal wrong
        began, result = time.monotonic(), check(mutation, checkouts)
        with lock:
            wrong += result != "caught"
            print(f"{result} ({time.monotonic() - began:.0f} s)  {mutation}", flush=True)

    with ThreadPoolExecutor(len(copies)) as pool:
        list(pool.map(work, chosen))
    print(f"{len(chosen) - wrong} of {len(chosen)} mutations caught")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
