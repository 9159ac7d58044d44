"""Which trial may begin next, when several are trained at once.

The trials of a search are those that one worker would train, whatever the number of workers, the order in
which they end, and how often the search was cut. With KerasTuner's own way for several workers it depends
on who was quicker which trial has which number and which settings, so that no table of trials alone could
be gone on with. Here the oracle is asked in the plan's order, and a trial may begin once nothing that
is still being trained can change what it will be:

* random and grid: nothing can;
* hyperband: a fresh trial at once, even of a later bracket; a promoted one when the round that it is
  promoted from has ended, whole;
* bayesian: each trial learns from all that ended before it, so with n workers trial i is chosen
  when trials 1 to i-n have ended, and the n-1 between are guessed pessimistically, as KerasTuner does.
  There the number of workers is a setting of the search, and n must be kept to go on with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any

from cifar_core.settings.search_config import SearchConfig
from cifar_core.store import RunState
from cifar_core.tuning.oracle import Driver, Proposal
from cifar_core.tuning.plan import ENDED


class Schedule:
    """Hands out the trials of a search, each once, and is told how they ended.

    Args:
        config: of the search.
        rows: what is recorded of it, with trial_id, number, settings, state and score. Those that ended
            are not handed out again; the others are, and must be proposed as they were.
    """

    def __init__(self, config: SearchConfig, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.config, self._driver = config, Driver(config)
        self.plan = self._driver.plan
        self._recorded = {int(row["number"]): row for row in rows}
        self._scores = {
            number: row["score"] if row["state"] is RunState.FINISHED else None
            for number, row in self._recorded.items()
            if row["state"] in ENDED
        }
        """Of trials that ended, by number; None: failed."""
        self._asked: dict[int, Proposal] = {}
        """What the oracle proposed, in the plan's order and without a gap."""
        self._numbers: dict[str | None, int] = {}
        self._begun = set(self._scores)
        self._returned: list[Proposal] = []
        self._told = 0
        self._exhausted = False

    def next(self) -> Proposal | None:
        """The earliest trial that can begin; None: none can, until another has ended, or ever."""
        if self._returned:
            return self._given(self._returned.pop(0))
        while (proposal := self._ask()) is not None:
            if proposal.number not in self._begun:
                return self._given(proposal)
        return self._ahead()

    def end(self, proposal: Proposal, score: float | None) -> None:
        """A trial ended with its validation accuracy, or failed: None."""
        self._scores[proposal.number] = score
        if proposal.number in self._asked and not self._in_order:
            self._driver.tell(proposal, score)

    @property
    def done(self) -> bool:
        """Whether all have ended."""
        return self._exhausted or len(self._scores) == self.plan.trials

    def give_back(self, proposal: Proposal) -> None:
        """A trial that began was not ended: `next` hands it out again."""
        self._returned.append(proposal)

    def failed(self, trial_id: str | None) -> bool:
        """Whether it ended without a score."""
        number = self._numbers.get(trial_id)
        return number is not None and self._scores.get(number, 0.0) is None

    def promotable(self) -> set[str]:
        """Trials whose training may still be continued by one that has not begun.

        Of hyperband's rounds that are not yet decided, those of the best that can still be among the
        promoted; ties rank as the oracle ranks them, the earlier first.
        """
        keep: set[str] = set()
        start = 1
        for bracket in self.plan.brackets:
            starts = []
            for item in bracket.rounds:
                starts.append(range(start, start + item.trials))
                start += item.trials
            for mine, following in pairwise(starts):
                keep |= self._promotable(mine, following)
        return keep

    # --- Asking the oracle -------------------------------------------------------------------------

    @property
    def _in_order(self) -> bool:
        """Whether the oracle is told in the plan's order: bayesian, which learns from everything."""
        return self.config.tuner == "bayesian"

    def _ask(self) -> Proposal | None:
        """What the oracle proposes next; None where it can't be asked yet, or has no more."""
        number = len(self._asked) + 1
        if self._exhausted or number > self.plan.trials or not self._decided(number):
            return None
        if self._in_order:
            self._tell_until(number - self.config.workers)
        row = self._recorded.get(number)
        if row is not None:
            proposal = self._driver.reproposed(row["trial_id"], row["settings"])
        else:
            proposal = self._driver.propose()
        if proposal is None:
            self._exhausted = True
            return None
        self._asked[number], self._numbers[proposal.trial_id] = proposal, number
        if not self._in_order:
            self._settle(proposal)
        return proposal

    def _settle(self, proposal: Proposal) -> None:
        """Tell the oracle how it ended, or that it has, so that it can be asked for the next."""
        if proposal.number in self._scores:
            self._driver.tell(proposal, self._scores[proposal.number])
        else:
            self._driver.assume(proposal)

    def _tell_until(self, number: int) -> None:
        while self._told < number:
            self._told += 1
            self._driver.tell(self._asked[self._told], self._scores[self._told])

    def _decided(self, number: int) -> bool:
        """Whether nothing that has not ended can change what trial `number` will be."""
        if self._in_order:
            return all(earlier in self._scores for earlier in range(self._told + 1, number - self._lag))
        return all(earlier in self._scores for earlier in self._round_before(number))

    @property
    def _lag(self) -> int:
        return self.config.workers - 1

    def _round_before(self, number: int) -> range:
        """The trials among which `number` was chosen; none for one that starts anew."""
        start = 1
        for bracket in self.plan.brackets:
            before = range(0)
            for item in bracket.rounds:
                mine = range(start, start + item.trials)
                if number in mine:
                    return before
                before, start = mine, mine.stop
        return range(0)

    # --- Looking ahead -----------------------------------------------------------------------------

    def _ahead(self) -> Proposal | None:
        """Where a round is awaited: the earliest fresh trial after it, for a worker that would idle."""
        if self.config.tuner != "hyperband" or self._exhausted or len(self._asked) == self.plan.trials:
            return None
        for number, proposal in self._fresh.items():
            if number > len(self._asked) and number not in self._begun:
                return self._given(proposal)
        return None

    @cached_property
    def _fresh(self) -> dict[int, Proposal]:
        """All of hyperband's trials that start anew: how others score does not change them."""
        driver, found = Driver(self.config), {}
        while (proposal := driver.propose()) is not None:
            driver.tell(proposal, 0.0)
            if proposal.parent is None:
                found[proposal.number] = proposal
        return found

    def _given(self, proposal: Proposal) -> Proposal:
        self._begun.add(proposal.number)
        return proposal

    def _promotable(self, mine: range, following: range) -> set[str]:
        """Of a round's trials, those that may still get one of the next round's places."""
        children = [self._asked[number].parent for number in following if number in self._asked]
        ended = {number: self._id(number) for number in mine if self._scores.get(number) is not None}
        left = {number: name for number, name in ended.items() if name not in children}
        ranked = sorted(left, key=lambda number: self._scores[number] or 0.0, reverse=True)
        return {left[number] for number in ranked[: len(following) - len(children)]}

    def _id(self, number: int) -> str:
        found = self._asked.get(number)
        return found.trial_id if found is not None else self._fresh[number].trial_id
