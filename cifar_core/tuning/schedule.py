"""Order in which the trials of a search start when several are trained at once.

The trials of a search do not depend on the number of workers, the order in which trials end, or on
interruptions. With KerasTuner's own scheduling they would depend on which worker was quicker, and no table of
trials alone would be enough to continue a search. Here the oracle is asked in the plan's order, and a
trial may start once no running trial can change what it will be:

* random and grid: at once;
* hyperband: a new trial at once, even of a later bracket; a promoted one when the whole round before it has
  ended;
* bayesian: each trial learns from all that ended before it, so with n workers trial i is chosen when trials
  1 to i-n have ended, with pessimistic guesses for the n-1 in between, as KerasTuner does. The number of
  workers is therefore a setting of the search, and must be kept to continue it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any

from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunState
from cifar_core.store.records import DONE
from cifar_core.tuning.oracle import Driver, Proposal
from cifar_core.tuning.plan import taken_epochs


class Schedule:
    """Hands out each trial of a search once, and is told how the trials ended.

    Args:
        rows: its recorded trials, with trial_id, number, settings, state, score, epochs and taken_from. Those
            that ended are not handed out again; the others are, with the same settings.
    """

    def __init__(self, config: SearchConfig, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        rows = list(rows)
        self.config, self._driver = config, Driver(config, taken_epochs(rows))
        self.plan = self._driver.plan
        self._recorded = {int(row["number"]): row for row in rows}
        self._scores: dict[int, float | None] = {
            number: row["score"] if row["state"] == RunState.FINISHED else None
            for number, row in self._recorded.items()
            if row["state"] in DONE
        }
        """Score of each trial that ended, by number; None: failed."""
        self._asked: dict[int, Proposal] = {}
        """The oracle's proposals by number, in the plan's order without a gap."""
        self._numbers: dict[str | None, int] = {}
        self._begun = set(self._scores)
        self._told = 0
        self._exhausted = False
        self._in_order = config.tuner == "bayesian"
        """Whether the oracle must be told scores in the plan's order."""

    @property
    def done(self) -> bool:
        """Whether all trials have ended."""
        return self._exhausted or len(self._scores) == self.plan.trials

    @property
    def left_out(self) -> int:
        """Number of different impossible settings that were drawn and left out."""
        return self._driver.left_out

    def next(self) -> Proposal | None:
        """The earliest trial that can start; None: none can until another has ended, or ever."""
        unbegun = (asked for asked in iter(self._ask, None) if asked.number not in self._begun)
        proposal = next(unbegun, None) or self._ahead()
        if proposal is not None:
            self._begun.add(proposal.number)
        return proposal

    def end(self, proposal: Proposal, score: float | None) -> None:
        """Record that a trial ended with this validation accuracy, or failed (None)."""
        self._scores[proposal.number] = score
        if proposal.number in self._asked and not self._in_order:
            self._driver.tell(proposal, score)

    def failed(self, trial_id: str | None) -> bool:
        """Whether the trial ended without a score."""
        number = self._numbers.get(trial_id)
        return number is not None and self._scores.get(number, 0.0) is None

    def promotable(self) -> set[str]:
        """Ids of trials that may still be continued by a trial that has not begun.

        In each undecided round of hyperband, these are the best that can still be promoted; equal scores
        rank as in the oracle, the earlier trial first.
        """
        keep: set[str] = set()
        for rounds in self._rounds():
            for current, following in pairwise(rounds):
                children = [self._asked[number].parent for number in following if number in self._asked]
                ended = [number for number in current if self._scores.get(number) is not None]
                ranked = sorted(ended, key=lambda number: self._scores[number] or 0.0, reverse=True)
                ids = [(self._asked.get(number) or self._new_trials[number]).trial_id for number in ranked]
                left = [name for name in ids if name not in children]
                keep |= set(left[: len(following) - len(children)])
        return keep

    def _rounds(self) -> Iterator[list[range]]:
        """The trial numbers of each round, bracket by bracket."""
        start = 1
        for bracket in self.plan.brackets:
            rounds = []
            for item in bracket.rounds:
                rounds.append(range(start, start + item.trials))
                start += item.trials
            yield rounds

    # --- Asking the oracle -------------------------------------------------------------------------

    def _ask(self) -> Proposal | None:
        """The oracle's next proposal; None if it cannot be asked yet, or has no more."""
        number = len(self._asked) + 1
        if self._exhausted or number > self.plan.trials or not self._decided(number):
            return None
        while self._in_order and self._told < number - self.config.workers:
            self._told += 1
            self._driver.tell(self._asked[self._told], self._scores[self._told])
        row = self._recorded.get(number)
        if row is None:
            proposal = self._driver.propose()
        else:
            proposal = self._driver.propose_again(row["trial_id"], row["settings"])
        if proposal is None:
            self._exhausted = True
            return None
        self._asked[number], self._numbers[proposal.trial_id] = proposal, number
        if not self._in_order:
            self._driver.tell(proposal, self._scores.get(number))
        return proposal

    def _decided(self, number: int) -> bool:
        """Whether no trial that has not ended can change what trial `number` will be."""
        needed = range(self._told + 1, number - self.config.workers + 1) if self._in_order else range(0)
        for rounds in () if self._in_order else self._rounds():
            for before, current in pairwise([range(0), *rounds]):
                if number in current:
                    needed = before  # it was chosen among these; a new trial among none
        return all(earlier in self._scores for earlier in needed)

    # --- Looking ahead -----------------------------------------------------------------------------

    def _ahead(self) -> Proposal | None:
        """While a round has not ended: the earliest new trial after it, for a worker that would idle."""
        if self.config.tuner != "hyperband" or self._exhausted or len(self._asked) == self.plan.trials:
            return None
        waiting = (number for number in self._new_trials if number > len(self._asked))
        number = next((number for number in waiting if number not in self._begun), None)
        return None if number is None else self._new_trials[number]

    @cached_property
    def _new_trials(self) -> dict[int, Proposal]:
        """All trials of hyperband that are not continuations: they do not depend on scores."""
        driver, found = Driver(self.config), {}
        while (proposal := driver.propose()) is not None:
            driver.tell(proposal, 0.0)
            if proposal.parent is None:
                found[proposal.number] = proposal
        return found
