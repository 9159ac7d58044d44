"""Tags and notes on test images: three of one click, one's own, a filter, a file.

They belong to the image, whatever run it was seen in, and stand in the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from cifar_core.errors import ConfigError, StoreError
from cifar_core.labels import CLASS_NAMES
from pages.compare._files import as_csv
from pages.compare._gallery_data import Answered, fingerprint_of, say_unknown
from pages.shared import resources
from pages.shared.words import plain

if TYPE_CHECKING:
    import pandas as pd

STANDARD = ("wrong label", "ambiguous", "model's fault")
NOTE = "note"
"""The tag of a note that says nothing else."""
EVERY, TAGGED, UNTAGGED = RESERVED = ("every image", "any tag", "no tag")
PARAMETER = "tag"
PROBLEM = "gallery_tag_problem"
MOST_NOTE = 2000


def tags_of(about: Answered) -> pd.DataFrame:
    """Of the images that this run was tested on: index, tag, note, created_at."""
    return resources.store().image_tags(fingerprint_of(about))


def choice(about: Answered) -> str:
    """The field that narrows a list by tag (`?tag=ambiguous`)."""
    options = [*RESERVED, *_known(tags_of(about)["tag"])]
    chosen = st.session_state.get(PARAMETER)
    if chosen is None:  # the address speaks first, the field from then on
        say_unknown({PARAMETER: options})
    elif chosen not in options:  # its last image has just lost it
        options.append(chosen)
    return st.selectbox("Tag", options, key=PARAMETER, bind="query-params", width=145)


def narrowed(rows: pd.DataFrame, about: Answered, chosen: str) -> pd.DataFrame:
    """The rows whose image has the chosen tag."""
    if chosen == EVERY:
        return rows
    tags = tags_of(about)
    if chosen not in (TAGGED, UNTAGGED):
        tags = tags[tags["tag"] == chosen]
    tagged = rows["index"].isin(tags["index"])
    return rows[~tagged if chosen == UNTAGGED else tagged]


def marked(captions: Sequence[str], indices: Sequence[int], tags: pd.DataFrame) -> list[str]:
    """Captions with a line for each tag of their image."""
    by_image = tags.groupby("index")["tag"].agg(list).to_dict()
    return [
        "\n".join([caption, *(f"# {tag}" for tag in by_image.get(index, ()))])
        for caption, index in zip(captions, indices, strict=True)
    ]


def download(about: Answered, key: str) -> None:
    """All tags of this test set as a file."""
    tags = tags_of(about)
    if tags.empty:
        return
    st.download_button(
        "Tags",
        lambda: as_csv(exported(tags, about)),
        file_name=f"{about.run['dataset']}.tags.csv",
        key=f"{key}_tags_csv",
        type="tertiary",
        icon=":material/download:",
        on_click="ignore",
        help="All tags and notes of these test images, as CSV",
    )


def exported(tags: pd.DataFrame, about: Answered) -> pd.DataFrame:
    """index, label (its name), tag, note, created_at, dataset, fingerprint."""
    names = np.array(CLASS_NAMES, dtype=object)[about.table["label"].to_numpy()]
    by_index = dict(zip(about.table["index"], names, strict=True))
    file = tags[["index", "tag", "note", "created_at"]].copy()
    file.insert(1, "label", file["index"].map(by_index))
    return file.assign(dataset=about.run["dataset"], fingerprint=fingerprint_of(about))


def row(about: Answered, index: int, key: str) -> None:
    """The tags of one image: a click puts one on or takes it off; one's own tag and notes behind a button."""
    tags = tags_of(about)
    mine = tags[tags["index"] == index].set_index("tag")["note"].to_dict()
    if problem := st.session_state.pop(PROBLEM, None):
        st.error(plain(problem))
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"{key}_tag_row"):
        for place, tag in enumerate([*STANDARD, *(own for own in mine if own not in STANDARD)]):
            _button(about, index, tag, mine, key, place)
        with st.popover("Own tag or note", type="tertiary", icon=":material/sell:"):
            _own(about, index, tags, key)
    for tag, note in mine.items():
        if note:
            _note(about, index, tag, note, key)


def _button(about: Answered, index: int, tag: str, mine: dict[str, str], key: str, place: int) -> None:
    is_on = tag in mine
    has_note = bool(mine.get(tag))
    st.button(
        plain(tag),
        key=f"{key}_tag_{place}",
        type="primary" if is_on else "secondary",
        shortcut=str(place + 1) if place < len(STANDARD) else None,
        disabled=has_note,
        help="It has a note: take the note off first." if has_note else None,
        on_click=_untag if is_on else _tag,
        args=(about, index, tag),
    )


def _note(about: Answered, index: int, tag: str, note: str, key: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f":small[**{plain(tag)}:** {plain(note)}]", width="content")
        st.button(
            "Take the note off",
            key=f"{key}_unnote_{tag}",
            type="tertiary",
            icon=":material/close:",
            on_click=_untag if tag == NOTE else _tag,
            args=(about, index, tag),
        )


def _own(about: Answered, index: int, tags: pd.DataFrame, key: str) -> None:
    tag_key, note_key = f"{key}_own_{index}", f"{key}_note_{index}"
    with st.form(f"{key}_own_form", border=False):
        st.selectbox(
            "Tag",
            [NOTE, *(tag for tag in _known(tags["tag"]) if tag != NOTE)],
            key=tag_key,
            accept_new_options=True,
            help="Choose one, or type your own and press Enter.",
        )
        st.text_area("Note", key=note_key, max_chars=MOST_NOTE, height=80, placeholder="May stay empty")
        st.form_submit_button("Save", on_click=_save, args=(about, index, tag_key, note_key))


def _known(used: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*STANDARD, *sorted(used)]))


def _save(about: Answered, index: int, tag_key: str, note_key: str) -> None:
    tag = " ".join(str(st.session_state[tag_key] or NOTE).split())
    note = str(st.session_state[note_key] or "").strip()
    if tag in RESERVED:
        st.session_state[PROBLEM] = f"“{tag}” is a choice of the filter; call the tag something else."
    elif tag == NOTE and not note:
        st.session_state[PROBLEM] = "Write a note, or choose a tag."
    else:
        _tag(about, index, tag, note)


def _tag(about: Answered, index: int, tag: str, note: str = "") -> None:
    try:
        resources.store().tag_image(fingerprint_of(about), index, tag, note)
    except (ConfigError, StoreError) as error:
        st.session_state[PROBLEM] = str(error)


def _untag(about: Answered, index: int, tag: str) -> None:
    try:
        resources.store().untag_image(fingerprint_of(about), index, tag)
    except StoreError as error:
        st.session_state[PROBLEM] = str(error)
