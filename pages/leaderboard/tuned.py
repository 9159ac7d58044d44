"""Tuned against baseline: is it better, is that luck, and was it the tuning or only more training?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import streamlit as st

from cifar_core.analysis import comparison
from cifar_core.analysis.comparison import LEAST_SEEDS, Board, Fair, Group, Pair
from cifar_core.analysis.statistics import Comparison
from pages.shared import access, figure, more_runs, navigation, resources, words
from pages.shared.link import link
from pages.shared.snapshot import Snapshot, published, reader
from pages.shared.table import STYLE, Fact, facts_html
from pages.shared.words import comparison_sentence, mean_and_sd, model_title, plain, points

if TYPE_CHECKING:
    import plotly.graph_objects as go

EQUAL = "baseline, equal budget"
ABOUT_DUMBBELL = (
    "One line per model, from its baseline (ring) to its tuned runs (disc); bars are one standard "
    "deviation over seeds. The diamond is the baseline given the tuned run's epochs and "
    "augmentation: what lies between diamond and disc was brought by the tuning itself. Grey "
    "crosses are the study's figures, whose tuned ones were chosen on the test set."
)
ABOUT_INTERVALS = (
    "By how many points the tuned run is ahead of the baseline, with a 95 % interval from a paired bootstrap "
    "over the same test images. A filled dot: the exact McNemar test finds a difference (p < 0.05). The "
    "interval tells how much the choice of test images matters, not how much the seed does: for that, run "
    "several seeds."
)
LEADS: dict[str, str] = {
    "better": "Tuned is better",
    "no evidence": "No evidence that either is better",
    "worse": "Tuned is worse",
}


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
    study = published(board)
    searches = _search_times()
    for pair in pairs:
        _card(pair, fairs[pair.model], study, searches)


@st.cache_resource(max_entries=4, show_spinner=False)
def _worked_out(
    version: tuple[Any, ...],  # noqa: ARG001 - the key: the store as it was
    board: Board,
    _found: Snapshot,
) -> tuple[list[Pair], dict[str, Fair]]:
    """All pairs, the most accurate model first, and their fair views by model."""
    read = reader(_found.runs)
    pairs = comparison.pairs(_found.runs, board, read)
    pairs.sort(key=lambda pair: -max(group.spread.mean for group in (pair.baseline, pair.tuned) if group))
    store = resources.store()
    fairs = {pair.model: comparison.fair_comparison(store, _found.runs, board, pair, read) for pair in pairs}
    return pairs, fairs


def _nothing_to_pair(models: list[str]) -> None:
    which = "of these models " if models else ""
    st.info(
        f"No run {which}on this board is a baseline or tuned. Train a model's paper-baseline, and its "
        "paper-tuned or what a search finds: their difference then stands here, with the odds "
        "that it is luck."
    )
    if navigation.known("train"):
        navigation.link("train", "Train a baseline", preset="base_cnn/paper-baseline")


# --- The fair view ------------------------------------------------------------------------------


def _fair_words(pair: Pair, fair: Fair) -> None:
    assert pair.baseline is not None
    assert pair.tuned is not None
    st.markdown(f"**At equal epochs and augmentation.** {_fair_sentence(pair, fair)}")
    if fair.obstacle or fair.already or fair.waiting:
        return
    if fair.group is None or len(fair.group.ids) < LEAST_SEEDS:
        access.button(
            f"Queue this baseline with {more_runs.MORE_SEEDS} seeds",
            key=f"fair_{pair.model}",
            icon=":material/balance:",
            help="The baseline's settings with the tuned run's epochs, images and augmentation.",
            on_click=more_runs.fair_baseline,
            args=(pair.baseline.stand_in, pair.tuned.stand_in),
        )


def _fair_sentence(pair: Pair, fair: Fair) -> str:
    assert pair.baseline is not None
    assert pair.tuned is not None
    if fair.obstacle:
        return f"Such a baseline can't be made: {plain(fair.obstacle)}"
    if fair.already:
        return "The baseline had them already, so the whole difference is the tuning's."
    if fair.group is None:
        under_way = f" {fair.waiting} such {_runs(fair.waiting)} under way." if fair.waiting else ""
        return (
            f"Not known yet: the tuned run had {pair.tuned.epochs:.4g} epochs and its own augmentation, "
            f"the baseline {pair.baseline.epochs:.4g} epochs. Only a baseline with the same of both can "
            f"tell what the tuning itself brought.{under_way}"
        )
    training = fair.group.spread.mean - pair.baseline.spread.mean
    tuning = pair.tuned.spread.mean - fair.group.spread.mean
    said = (
        f"{LEADS[fair.result.verdict]}: {comparison_sentence(fair.result)}"
        if isinstance(fair.result, Comparison)
        else fair.result
    )
    return (
        f"{said} Of the way from baseline to tuned, more training and augmentation made "
        f"{points(training)}, the tuning itself {points(tuning)} (means over seeds)."
    )


def _runs(number: int) -> str:
    return "run is" if number == 1 else "runs are"


# --- Figures ------------------------------------------------------------------------------------


def _dumbbell(pairs: list[Pair], fairs: dict[str, Fair], board: Board) -> None:
    import pandas as pd

    from cifar_core.analysis.study.paper import paper_results
    from cifar_core.plots import leaderboard_dumbbell

    sides = [
        (name, group)
        for pair in pairs
        for name, group in (
            ("baseline", pair.baseline),
            (EQUAL, _own(fairs[pair.model])),
            ("tuned", pair.tuned),
        )
        if group is not None
    ]
    rows = [(group.model, name, group.spread.mean, group.spread.sd) for name, group in sides]
    results = pd.DataFrame(rows, columns=["model", "variant", "accuracy", "sd"])
    study = paper_results() if published(board) else None
    figure.show(
        "From baseline to tuned",
        ABOUT_DUMBBELL,
        _named(leaderboard_dumbbell(results, study), [pair.model for pair in pairs]),
        key="dumbbell",
        alt="Test accuracy of each model's baseline and tuned runs.",
        header=("model", "side", "accuracy", "sd", "runs", "run_ids"),
        rows=lambda: [
            (group.model, name, group.spread.mean, group.spread.sd, len(group.ids), " ".join(group.ids))
            for name, group in sides
        ],
        height=110 + 52 * len(pairs),
    )


def _own(fair: Fair) -> Group | None:
    """The equal-budget runs, where they are others than the baseline."""
    return None if fair.already or fair.group is None else replace(fair.group)


def _named(chart: go.Figure, models: list[str]) -> go.Figure:
    """The models by their titles; the axis needs no title of its own, and a phone has no room for it."""
    chart.update_layout(
        height=110 + 52 * len(models),
        yaxis={
            "title": None,
            "tickmode": "array",
            "tickvals": models,
            "ticktext": [model_title(model) for model in models],
        },
    )
    return chart


def _intervals(pairs: list[Pair], fairs: dict[str, Fair]) -> None:
    from cifar_core.plots import difference_intervals

    found: dict[str, Comparison] = {}
    for pair in pairs:
        title = model_title(pair.model)
        for label, result in (
            (f"{title}", pair.result),
            (f"{title}, equal budget", None if fairs[pair.model].already else fairs[pair.model].result),
        ):
            if isinstance(result, Comparison):
                found[label] = result
    if not found:
        return
    chart = difference_intervals(found, against="the baseline")
    chart.update_layout(
        yaxis={"title": None},
        xaxis={"title": {"text": "Tuned less baseline (points)"}},
        height=100 + 40 * len(found),
    )
    figure.show(
        "The difference, and how sure it is",
        ABOUT_INTERVALS,
        chart,
        key="differences",
        alt="Difference of test accuracy, tuned less baseline, with 95 % intervals.",
        header=(
            "model",
            "difference",
            "low",
            "high",
            "only_tuned_right",
            "only_baseline_right",
            "p",
            "verdict",
        ),
        rows=lambda: [
            (label, r.difference, r.low, r.high, r.only_a, r.only_b, r.p_value, r.verdict)
            for label, r in found.items()
        ],
        height=100 + 40 * len(found),
    )


# --- One model ----------------------------------------------------------------------------------


def _card(
    pair: Pair, fair: Fair, study: dict[tuple[str, str], tuple[float, str]], searches: dict[str, float]
) -> None:
    with st.container(border=True):
        st.subheader(model_title(pair.model), anchor=False)
        if isinstance(pair.result, Comparison):
            st.markdown(f"**{LEADS[pair.result.verdict]}.** {comparison_sentence(pair.result)}")
        elif pair.result:
            st.markdown(f"**Not tested.** {plain(pair.result)}")
        else:
            st.markdown(_what_lacks(pair))
        if warning := _protocol_words(pair):
            st.warning(warning, icon=":material/warning:")
        st.html(STYLE + facts_html(_facts(pair, study, searches)))
        if pair.baseline and pair.tuned:
            _fair_words(pair, fair)
        _buttons(pair, fair)


def _what_lacks(pair: Pair) -> str:
    if pair.tuned is None:
        return "**No tuned run yet.** Search for better settings, or train the study's tuned ones."
    return "**No baseline yet.** Without one nobody can say what the tuning brought."


def _protocol_words(pair: Pair) -> str:
    if not (pair.baseline and pair.tuned):
        return ""
    selected = "test-selected"
    if pair.same_protocol:
        if pair.tuned.protocol != selected:
            return ""
        return (
            "Both figures were selected on the test set: both flatter, and the test above is too sure "
            "of itself."
        )
    side, other = ("tuned", "baseline") if pair.tuned.protocol == selected else ("baseline", "tuned")
    return (
        f"The two protocols differ: the {side} figure was selected on the test set, the {other} one was not. "
        f"That flatters {side}, and part of the difference may be nothing else. For a fair answer run the "
        f"{side} settings with the protocol held-out."
    )


def _facts(
    pair: Pair, study: dict[tuple[str, str], tuple[float, str]], searches: dict[str, float]
) -> list[Fact]:
    facts: list[Fact] = []
    for name, group in (("baseline", pair.baseline), ("tuned", pair.tuned)):
        if group is None:
            facts.append((name.capitalize(), words.NOTHING, "no finished run"))
            continue
        facts.append(
            (name.capitalize(), mean_and_sd(group.spread.mean, group.spread.sd), _about_side(group, study))
        )
    if isinstance(pair.result, Comparison):
        facts += [
            ("Only tuned is right", words.count(pair.result.only_a), "test images"),
            ("Only baseline is right", words.count(pair.result.only_b), "test images"),
        ]
    if pair.tuned is not None:
        known = [searches[search] for search in pair.tuned.search_ids if search in searches]
        cost = words.duration(sum(known)) if known else words.NOTHING
        facts.append(("The search took", cost, "" if known else "no search on record"))
    return facts


def _about_side(group: Group, study: dict[tuple[str, str], tuple[float, str]]) -> str:
    number = f"{len(group.ids)} {'run' if len(group.ids) == 1 else 'seeds'}"
    pieces = [number, f"{group.epochs:.4g} epochs", words.duration(group.training_s), group.protocol]
    if (group.model, group.variant) in study:
        pieces.append(f"published {words.percent(study[group.model, group.variant][0])}")
    return " · ".join(piece for piece in pieces if piece != words.NOTHING)


def _buttons(pair: Pair, fair: Fair) -> None:
    few = [
        (name, group)
        for name, group in (("baseline", pair.baseline), ("tuned", pair.tuned), ("equal budget", _own(fair)))
        if group is not None and len(group.ids) < LEAST_SEEDS
    ]
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        for name, group in few:
            access.button(
                f"Run {more_runs.MORE_SEEDS} more seeds, {name}",
                key=f"seeds_{pair.model}_{name}",
                icon=":material/casino:",
                help=f"{len(group.ids)} so far; from {LEAST_SEEDS} on the spread over seeds says something.",
                on_click=more_runs.more_seeds,
                args=([group.stand_in],),
            )
        if pair.baseline and pair.tuned:
            a, b = pair.baseline.stand_in, pair.tuned.stand_in
            link("What it fixed and broke", "gallery", key=f"fixed_{pair.model}", view="Two runs", a=a, b=b)
        elif pair.tuned is None and navigation.known("tune"):
            navigation.link("tune", "Search for better settings", model=pair.model)


def _search_times() -> dict[str, float]:
    """Seconds that each search took, by its id."""
    rows: Any = resources.store().searches()[["id", "duration_s"]].dropna()
    return dict(zip(rows["id"], rows["duration_s"], strict=True))
