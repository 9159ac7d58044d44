"""Tuned against baseline: is it better, is that luck, and was it the tuning or only more training?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from cifar_core.analysis.statistics import Comparison
from cifar_core.analysis.tuned import LEAST_SEEDS, Fair, Group, Pair, fair_comparison
from cifar_core.analysis.tuned import pairs as find_pairs
from cifar_core.base.lazy import pd
from pages.shared import access, figure, more_runs, navigation, resources, words
from pages.shared.snapshot import Snapshot, published, reader
from pages.shared.table import STYLE, Fact, facts_html
from pages.shared.words import comparison_sentence, mean_and_sd, model_title, plain, points

if TYPE_CHECKING:
    from cifar_core.analysis.boards import Board

EQUAL = "baseline, equal budget"
ABOUT_DUMBBELL = (
    "One line per model, from its baseline (ring) to its tuned runs (disc); bars are one standard "
    "deviation over seeds. The diamond is the baseline given the tuned run's epochs and "
    "augmentation: the distance from diamond to disc is due to the other tuned settings. Grey "
    "crosses are the study's figures, whose tuned ones were chosen on the test set."
)
ABOUT_INTERVALS = (
    "By how many points the tuned setting is ahead of the baseline, means over their seeds, with a 95 % "
    "interval from a paired bootstrap over the same test images. A filled dot: an exact test over these "
    "images (McNemar's for one run each) finds a difference (p < 0.05). The interval shows how much the "
    "choice of test images matters, not how much the seed does: for that, run several seeds."
)
LEADS: dict[str, str] = {
    "better": "Tuned is better",
    "no evidence": "No evidence that either is better",
    "worse": "Tuned is worse",
}
Study = dict[tuple[str, str], tuple[float, str]]


def show(found: Snapshot, board: Board, models: list[str]) -> None:
    """All pairs on the board's images.

    Args:
        found: the store.
        board: whose images and protocol.
        models: only these; all where empty.
    """
    everything, fairs = _worked_out(found.version, board, found)
    pairs = [pair for pair in everything if not models or pair.model in models]
    if not pairs:
        _nothing_to_pair(models)
        return
    _dumbbell(pairs, fairs, board)
    _intervals(pairs, fairs)
    for pair in pairs:
        _card(pair, fairs[pair.model], published(board))


@st.cache_resource(max_entries=4, show_spinner=False)
def _worked_out(
    version: tuple[Any, ...],  # noqa: ARG001 - the key: the store as it was
    board: Board,
    _found: Snapshot,
) -> tuple[list[Pair], dict[str, Fair]]:
    """All pairs, the most accurate model first, and their comparisons at equal budget by model."""
    read, store, rows = reader(_found.runs), resources.store(), _found.leaderboard("settings")
    pairs = find_pairs(rows, board, read)
    pairs.sort(key=lambda pair: -max(group.spread.mean for group in (pair.baseline, pair.tuned) if group))
    fairs = {pair.model: fair_comparison(store, rows, _found.runs, board, pair, read) for pair in pairs}
    return pairs, fairs


def _nothing_to_pair(models: list[str]) -> None:
    which = "of these models " if models else ""
    st.info(
        f"No run {which}on this board is a baseline or tuned. Train a model's paper-baseline, and its "
        "paper-tuned or what a search finds: their difference is then shown here, with a "
        "significance test."
    )
    navigation.link("train", "Train a baseline", preset="base_cnn/paper-baseline")


# --- Figures ------------------------------------------------------------------------------------


def _sides(pair: Pair, fair: Fair) -> dict[str, Group]:
    """The groups of runs that there are, by name."""
    own = None if fair.already else fair.group
    named = {"baseline": pair.baseline, EQUAL: own, "tuned": pair.tuned}
    return {name: group for name, group in named.items() if group is not None}


def _dumbbell(pairs: list[Pair], fairs: dict[str, Fair], board: Board) -> None:
    from cifar_core.analysis.study.paper import paper_results
    from cifar_core.plots import leaderboard_dumbbell

    sides = [side for pair in pairs for side in _sides(pair, fairs[pair.model]).items()]
    rows = [(group.model, name, group.spread.mean, group.spread.sd) for name, group in sides]
    results = pd.DataFrame(rows, columns=["model", "variant", "accuracy", "sd"])
    chart = leaderboard_dumbbell(results, paper_results() if published(board) else None)
    chart.update_layout(yaxis_title=None)  # the models name themselves, and a phone has no room
    figure.show(
        "From baseline to tuned",
        ABOUT_DUMBBELL,
        chart,
        key="dumbbell",
        alt="Test accuracy of each model's baseline and tuned runs.",
        header=("model", "side", "accuracy", "sd", "runs", "run_ids"),
        rows=lambda: [
            (group.model, name, group.spread.mean, group.spread.sd, len(group.ids), " ".join(group.ids))
            for name, group in sides
        ],
        height=chart.layout.height,
    )


def _intervals(pairs: list[Pair], fairs: dict[str, Fair]) -> None:
    from cifar_core.plots import difference_intervals

    found: dict[str, Comparison] = {}
    for pair in pairs:
        fair, title = fairs[pair.model], model_title(pair.model)
        equal = None if fair.already else fair.result
        for label, result in ((title, pair.result), (f"{title}, equal budget", equal)):
            if isinstance(result, Comparison):
                found[label] = result
    if not found:
        return
    chart = difference_intervals(found, against="the baseline").update_layout(yaxis_title=None)
    numbers = ("difference", "low", "high", "only_a", "only_b", "p_value", "verdict")
    figure.show(
        "The difference, and how sure it is",
        ABOUT_INTERVALS,
        chart,
        key="differences",
        alt="Difference of test accuracy, tuned less baseline, with 95 % intervals.",
        header=("model", *numbers[:3], "only_tuned_right", "only_baseline_right", "p", "verdict"),
        rows=lambda: [(label, *(getattr(r, name) for name in numbers)) for label, r in found.items()],
        height=chart.layout.height,
    )


# --- One model ----------------------------------------------------------------------------------


def _card(pair: Pair, fair: Fair, study: Study) -> None:
    with st.container(border=True):
        st.subheader(model_title(pair.model), anchor=False)
        if isinstance(pair.result, Comparison):
            st.markdown(f"**{LEADS[pair.result.verdict]}.** {comparison_sentence(pair.result)}")
        elif pair.result:
            st.markdown(f"**Not comparable.** {plain(pair.result)}")
        elif pair.tuned is None:
            st.markdown("**No tuned run yet.** Search for better settings, or train the study's tuned ones.")
        else:
            st.markdown("**No baseline yet.** Train one to see what the tuning gained.")
        if warning := _protocol_words(pair):
            st.warning(warning, icon=":material/warning:")
        st.html(STYLE + facts_html(_facts(pair, study)))
        if pair.baseline and pair.tuned:
            st.markdown(f"**At equal epochs and augmentation.** {_fair_sentence(pair, fair)}")
        _buttons(pair, fair)


def _protocol_words(pair: Pair) -> str:
    if not (pair.baseline and pair.tuned):
        return ""
    selected = "test-selected"
    if pair.same_protocol:
        if pair.tuned.protocol != selected:
            return ""
        return (
            "Both figures were selected on the test set: both are too optimistic, and so is the "
            "significance test above."
        )
    side, other = ("tuned", "baseline") if pair.tuned.protocol == selected else ("baseline", "tuned")
    return (
        f"The two protocols differ: the {side} figure was selected on the test set, the {other} one was not. "
        f"That favours {side} and may explain part of the difference. For a fair comparison run the "
        f"{side} settings with the protocol held-out."
    )


def _fair_sentence(pair: Pair, fair: Fair) -> str:
    """What epochs and augmentation make of the difference, as far as it was measured."""
    if fair.obstacle:
        return f"Such a baseline can't be made: {plain(fair.obstacle)}"
    if fair.already:
        return "The baseline had the same, so none of the difference comes from them."
    *most, last = (name.replace("_", " ") for name in fair.changes)
    changes = f"{', '.join(most)} and {last}" if most else last
    if fair.group is None:
        waiting = f" {fair.waiting} such {_runs(fair.waiting)} under way." if fair.waiting else ""
        return (
            f"Not known yet: the two differ in {changes}. Only a baseline with the tuned run's values of "
            f"{'these' if most else 'it'} shows what the other settings gain.{waiting}"
        )
    if not isinstance(fair.result, Comparison):
        return plain(fair.result)
    sentence = f"{LEADS[fair.result.verdict]}: {comparison_sentence(fair.result)}"
    if not (isinstance(fair.budget, Comparison) and isinstance(pair.result, Comparison)):
        return sentence
    return (
        f"{sentence} Of the {points(pair.result.difference)} from baseline to tuned, {changes} "
        f"{'make' if most else 'makes'} {points(fair.budget.difference)}, the other settings "
        f"{points(fair.result.difference)}."
    )


def _runs(number: int) -> str:
    return "run is" if number == 1 else "runs are"


def _facts(pair: Pair, study: Study) -> list[Fact]:
    facts: list[Fact] = []
    for name, group in (("Baseline", pair.baseline), ("Tuned", pair.tuned)):
        if group is None:
            facts.append((name, words.NOTHING, "no finished run"))
        else:
            facts.append((name, mean_and_sd(group.spread.mean, group.spread.sd), _about_side(group, study)))
    if isinstance(pair.result, Comparison):
        over = "test images" if pair.result.runs_a * pair.result.runs_b == 1 else "test images, pairs' mean"
        facts += [
            ("Only tuned is right", words.count(pair.result.only_a), over),
            ("Only baseline is right", words.count(pair.result.only_b), over),
        ]
    if pair.tuned is not None:
        cost = words.duration(pair.tuned.search_s)
        facts.append(("The search took", cost, "no search on record" if cost == words.NOTHING else ""))
    return facts


def _about_side(group: Group, study: Study) -> str:
    pieces = ["1 run" if len(group.ids) == 1 else f"{len(group.ids)} seeds"]
    if group.repeats:
        pieces.append(f"{group.repeats} repeated, not counted")
    pieces += [f"{group.epochs:.4g} epochs", words.duration(group.training_s), group.protocol]
    if (group.model, group.variant) in study:
        pieces.append(f"published {words.percent(study[group.model, group.variant][0])}")
    return " · ".join(piece for piece in pieces if piece != words.NOTHING)


def _buttons(pair: Pair, fair: Fair) -> None:
    few = {name: group for name, group in _sides(pair, fair).items() if len(group.ids) < LEAST_SEEDS}
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if fair.changes and pair.baseline and pair.tuned and not fair.waiting and fair.group is None:
            access.button(
                f"Queue this baseline with {more_runs.MORE_SEEDS} seeds",
                key=f"fair_{pair.model}",
                icon=":material/balance:",
                help="The baseline's settings with the tuned run's epochs, images and augmentation.",
                on_click=more_runs.fair_baseline,
                args=(pair.baseline.ids[0], pair.tuned.ids[0]),
            )
        for name, group in few.items():
            access.button(
                f"Run {more_runs.MORE_SEEDS} more seeds, {name.removeprefix('baseline, ')}",
                key=f"seeds_{pair.model}_{name.removeprefix('baseline, ')}",
                icon=":material/casino:",
                help=f"{len(group.ids)} so far; from {LEAST_SEEDS} on the spread over seeds is meaningful.",
                on_click=more_runs.more_seeds,
                args=([group.ids[0]],),
            )
        if pair.baseline and pair.tuned:
            a, b = pair.baseline.ids[0], pair.tuned.ids[0]
            navigation.link("gallery", "What it fixed and broke", view="Two runs", a=a, b=b)
        elif pair.tuned is None:
            navigation.link("tune", "Search for better settings", model=pair.model)
