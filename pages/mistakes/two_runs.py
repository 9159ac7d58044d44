"""Two runs: what the second got right that the first had wrong, what it broke, what both get wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from cifar_core.analysis import comparison
from cifar_core.analysis.mistakes import changed_pairs
from cifar_core.base.csv_text import csv_text
from cifar_core.base.lazy import pd
from cifar_core.errors import ConfigError
from pages.mistakes import browse, disagreement, tags
from pages.mistakes.data import Answered, answered, changes, choose, keeping_predictions, say_unknown
from pages.mistakes.one_run import EVERY, named
from pages.shared import figure
from pages.shared.downloads import csv_button
from pages.shared.table import STYLE, facts_html, table_html
from pages.shared.words import message, percent

if TYPE_CHECKING:
    import numpy as np

GROUPS = ("fixed", "broken", "both wrong")
SHOWN_PAIRS = 12
OPTIONS = {"group": GROUPS, "size": tuple(browse.TIMES)}
FOR_HELP = "What A took it for where that is fixed, else what B takes it for."
ABOUT_PAIRS = (
    "For each class and the class it was mistaken for: how many of A's mistakes of that kind B gets right, "
    "and how many B makes where A was right. Net is the one less the other."
)


def show(runs: pd.DataFrame) -> None:
    """Two runs of the store against each other."""
    if len(runs) < 2:
        st.info(
            "There is one finished run. With a second run, this view shows what it fixes and what it breaks."
        )
        return
    say_unknown(OPTIONS)
    kept = keeping_predictions(runs)
    first, second = comparison.default_pair(kept if len(kept) > 1 else runs)
    with st.container(horizontal=True, gap="small"):
        a_id = choose(runs, "a", "Run A", first)
        b_id = choose(runs, "b", "Run B", second)
    if a_id == b_id:
        st.info("A and B are the same run: choose another for one of them.")
        return
    a, b = answered(runs, a_id), answered(runs, b_id)
    if a is None or b is None:
        return
    try:
        table = changes(a, b)
    except ConfigError as error:
        st.info(message(error))
        return
    say_unknown(dict.fromkeys(("class", "for"), (EVERY, *a.classes)))
    disagreement.verdict(a, b, table)
    st.fragment(_gallery)(a, b, table, runs)
    _facts(a, b, table)
    disagreement.by_class(table, a.classes)
    _pairs(table, a.classes)
    disagreement.confusion(table, a.classes)


def _facts(a: Answered, b: Answered, table: pd.DataFrame) -> None:
    counted = table["change"].value_counts()
    accuracies = [float(one.table["correct"].mean()) for one in (a, b)]
    points = 100 * (accuracies[1] - accuracies[0])
    facts = [
        (name.capitalize(), f"{counted.get(name, 0):,}", percent(counted.get(name, 0) / len(table), 1))
        for name in (*GROUPS, "both right")
    ]
    facts.append(("Accuracy of A", percent(accuracies[0]), ""))
    facts.append(("Accuracy of B", percent(accuracies[1]), f"{points:+.2f} points"))
    st.html(STYLE + facts_html(facts))


def _gallery(a: Answered, b: Answered, table: pd.DataFrame, finished: pd.DataFrame) -> None:
    tagged, classes = tags.read(a), (EVERY, *a.classes)
    at = browse.layout()
    with at.filters:
        group = st.selectbox("Images", GROUPS, key="group", bind="query-params", width=130)
        true = st.selectbox("True class", classes, key="class", bind="query-params", width=150)
        mistaken = st.selectbox(
            "Mistaken for", classes, key="for", bind="query-params", width=165, help=FOR_HELP
        )
        tag = tags.choice(tagged)
        rows = tags.narrowed(
            _group(
                table, group, *(None if name == EVERY else a.classes.index(name) for name in (true, mistaken))
            ),
            tagged,
            tag,
        )
        csv_button(
            lambda: named(rows, a.classes),
            f"{a.run['id']}-{b.run['id']}.{group.replace(' ', '-')}.csv",
            key="gallery_two_csv",
        )
        tags.download(tagged, "two")
    browse.gallery(
        rows,
        tagged,
        key="two",
        at=at,
        one=lambda row, picture: _large(a, b, row, picture),
        captions=lambda shown: captions(shown, a.classes),
        asked=[a, b],
        finished=finished,
    )


def _group(table: pd.DataFrame, group: str, true: int | None, mistaken: int | None) -> pd.DataFrame:
    """The images of one kind, those first of which B is surest."""
    keep = table["change"] == group
    if true is not None:
        keep &= table["label"] == true
    if mistaken is not None:
        side = "predicted_a" if group == "fixed" else "predicted_b"
        keep &= table[side] == mistaken
    return table[keep].sort_values(["confidence_b", "index"], ascending=[False, True], kind="stable")


def captions(rows: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    """The truth, what A said, what B said."""
    return [
        f"{classes[label]}\nA: {classes[said_a]}\nB: {classes[said_b]}"
        for label, said_a, said_b in zip(rows["label"], rows["predicted_a"], rows["predicted_b"], strict=True)
    ]


def _large(a: Answered, b: Answered, row: pd.Series, picture: np.ndarray | None) -> None:
    said = []
    for letter, one in (("A", a), ("B", b)):
        place = one.place(row["index"])
        said.append(
            (f"{letter}: {one.classes[one.table['predicted'].iloc[place]]}", one.probabilities[place])
        )
    true = a.classes[row["label"]]
    browse.large(
        picture,
        int(row["label"]),
        said,
        a.classes,
        words=f"Test image {row['index']}: {true}. {said[0][0]}, {said[1][0]}",
    )


def _pairs(table: pd.DataFrame, classes: Sequence[str]) -> None:
    pairs = changed_pairs(table)
    names = [
        (classes[pair.true], classes[pair.mistaken_for], pair.fixed, pair.broken, pair.net)
        for pair in pairs.itertuples()
    ]
    header = ("True class", "Mistaken for", "Fixed", "Broken", "Net")
    figure.heading(
        "By pair of classes",
        ABOUT_PAIRS,
        table=lambda: csv_text(header, names),
        name="changed_pairs.csv",
    )
    lines = [
        (true, other, str(fixed), str(broken), f"{net:+d}")
        for true, other, fixed, broken, net in names[:SHOWN_PAIRS]
    ]
    st.html(STYLE + table_html(header, lines, right=(2, 3, 4)))
    if len(names) > SHOWN_PAIRS:
        st.caption(f"The {SHOWN_PAIRS} with most images of {len(names)}; the file has all.")
