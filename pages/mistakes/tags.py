"""Tags and notes on test images: three of one click, one's own, a filter, a file.

They belong to the image, whatever run it was seen in, and stand in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st

from cifar_core.base.lazy import pd
from cifar_core.errors import ConfigError, StoreError
from pages.mistakes.data import Answered, fingerprint_of, say_unknown
from pages.shared import access, resources
from pages.shared.downloads import csv_button
from pages.shared.words import plain

STANDARD = ("wrong label", "ambiguous", "model's fault")
NOTE = "note"
"""The tag of a note that says nothing else."""
EVERY, TAGGED, UNTAGGED = RESERVED = ("every image", "any tag", "no tag")
PARAMETER = "tag"
PROBLEM = "gallery_tag_problem"
SEVERAL_PROBLEM = "gallery_tags_problem"
MOST_NOTE = 2000
Image = tuple[str, int]
"""The fingerprint of a dataset and a place in its test set."""


@dataclass(frozen=True, eq=False)
class Tagged:
    """Tags of the images that run `about` was tested on: `table` has index, tag, note, created_at."""

    about: Answered
    table: pd.DataFrame

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.about)


def read(about: Answered) -> Tagged:
    """The tags as they are now."""
    return Tagged(about, resources.store().image_tags(fingerprint_of(about)))


def choice(tagged: Tagged) -> str:
    """The field that narrows a list by tag (`?tag=ambiguous`)."""
    options = [*RESERVED, *_known(tagged.table["tag"])]
    chosen = st.session_state.get(PARAMETER)
    if chosen is None:  # the address speaks first, the field from then on
        say_unknown({PARAMETER: options})
    elif chosen not in options:  # its last image has just lost it
        options.append(chosen)
    return st.selectbox("Tag", options, key=PARAMETER, bind="query-params", width=130)


def narrowed(rows: pd.DataFrame, tagged: Tagged, chosen: str) -> pd.DataFrame:
    """The rows whose image has the chosen tag."""
    if chosen == EVERY:
        return rows
    table = tagged.table
    if chosen not in (TAGGED, UNTAGGED):
        table = table[table["tag"] == chosen]
    has_it = rows["index"].isin(table["index"])
    return rows[~has_it if chosen == UNTAGGED else has_it]


def marked(captions: Sequence[str], indices: Sequence[int], tagged: Tagged) -> list[str]:
    """Captions with a line for each tag of their image."""
    by_image: dict[int, list[str]] = {}
    for index, tag in zip(tagged.table["index"], tagged.table["tag"], strict=True):
        by_image.setdefault(index, []).append(tag)
    return [
        "\n".join([caption, *(f"# {tag}" for tag in by_image.get(index, ()))])
        for caption, index in zip(captions, indices, strict=True)
    ]


def download(tagged: Tagged, key: str) -> None:
    """All tags of this test set as a file."""
    if tagged.table.empty:
        return
    csv_button(
        lambda: exported(tagged),
        f"{tagged.about.run['dataset']}.tags.csv",
        key=f"{key}_tags_csv",
        label="Tags",
        hint="All tags and notes of these test images, as CSV",
    )


def exported(tagged: Tagged) -> pd.DataFrame:
    """index, label (its name), tag, note, created_at, dataset, fingerprint."""
    images = tagged.about.table
    names = np.array(tagged.about.classes, dtype=object)[images["label"].to_numpy()]
    by_index = dict(zip(images["index"], names, strict=True))
    file = tagged.table[["index", "tag", "note", "created_at"]].copy()
    file.insert(1, "label", file["index"].map(by_index))
    return file.assign(dataset=tagged.about.run["dataset"], fingerprint=tagged.fingerprint)


def ticked(tagged: Tagged, key: str) -> set[int]:
    """Test images that are ticked on the wall `key`, over all of its pages; none of another dataset."""
    content, images = st.session_state.get(f"{key}_ticked", ("", set()))
    return images if content == tagged.fingerprint else set()


def tick(tagged: Tagged, key: str, images: Sequence[int], on: bool) -> None:
    """Tick images on the wall `key`, or take their ticks off."""
    before = ticked(tagged, key)
    st.session_state[f"{key}_ticked"] = (
        tagged.fingerprint,
        before | set(images) if on else before - set(images),
    )


def several(tagged: Tagged, listed: Sequence[int], key: str) -> None:
    """A menu that tags all ticked images at once, or all listed ones where none is ticked."""
    some = ticked(tagged, key)
    images = sorted(some) or list(listed)
    what = f"{len(some):,} ticked" if some else f"all {len(images):,}"
    with st.popover(f"Tag {what}", icon=":material/sell:", type="tertiary"):
        st.caption("Tick images by their corner, with Space or Shift + click. Without ticks, all listed.")
        with st.form(f"{key}_several", border=False):
            st.selectbox(
                "Tag", _known(tagged.table["tag"]), key=f"{key}_several_tag", accept_new_options=True
            )
            with st.container(horizontal=True, gap="small"):
                for label, change in (("Tag them", _tag_all), ("Remove the tag", _untag_all)):
                    st.form_submit_button(
                        label,
                        on_click=_change_all,
                        args=(change, tagged, images, key),
                        disabled=not access.may_launch(),
                    )
        if some:
            st.button(
                "Remove the ticks", key=f"{key}_untick", on_click=tick, args=(tagged, key, images, False)
            )
    if problem := st.session_state.pop(SEVERAL_PROBLEM, None):
        st.error(plain(problem))


@access.only_launchers
def _change_all(
    change: Callable[[Tagged, str, list[int]], None], tagged: Tagged, images: list[int], key: str
) -> None:
    tag = " ".join(str(st.session_state[f"{key}_several_tag"] or "").split())
    if not tag or tag in RESERVED:
        st.session_state[SEVERAL_PROBLEM] = f"Choose a tag other than {', '.join(RESERVED)}."
        return
    try:
        change(tagged, tag, images)
    except (ConfigError, StoreError) as error:
        st.session_state[SEVERAL_PROBLEM] = str(error)
    else:
        tick(tagged, key, images, False)


def _tag_all(tagged: Tagged, tag: str, images: list[int]) -> None:
    """Those that have the tag already keep its note."""
    has_it = set(tagged.table.loc[tagged.table["tag"] == tag, "index"])
    resources.store().tag_images(tagged.fingerprint, [image for image in images if image not in has_it], tag)


def _untag_all(tagged: Tagged, tag: str, images: list[int]) -> None:
    """Those whose tag has a note keep it."""
    noted = set(tagged.table.loc[(tagged.table["tag"] == tag) & (tagged.table["note"] != ""), "index"])
    resources.store().untag_images(tagged.fingerprint, [image for image in images if image not in noted], tag)


def row(tagged: Tagged, index: int, key: str) -> None:
    """The tags of one image: a click puts one on or takes it off; one's own tag and notes behind a button."""
    table = tagged.table
    mine = dict(table.loc[table["index"] == index, ["tag", "note"]].itertuples(index=False, name=None))
    if problem := st.session_state.pop(PROBLEM, None):
        st.error(plain(problem))
    image = (tagged.fingerprint, index)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"{key}_tag_row"):
        for place, tag in enumerate([*STANDARD, *(own for own in mine if own not in STANDARD)]):
            _button(image, tag, mine, key, place)
        with st.popover("Own tag or note", type="tertiary", icon=":material/sell:"):
            _own(image, _known(table["tag"]), key)
    for tag, note in mine.items():
        if note:
            _note(image, tag, note, key)


def _button(image: Image, tag: str, mine: dict[str, str], key: str, place: int) -> None:
    is_on = tag in mine
    has_note = bool(mine.get(tag))
    access.button(
        plain(tag),
        key=f"{key}_tag_{place}",
        type="primary" if is_on else "secondary",
        shortcut=str(place + 1) if place < len(STANDARD) else None,
        disabled=has_note,
        help="It has a note: take the note off first." if has_note else None,
        on_click=_untag if is_on else _tag,
        args=(*image, tag),
    )


def _note(image: Image, tag: str, note: str, key: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f":small[**{plain(tag)}:** {plain(note)}]", width="content")
        access.button(
            "Take the note off",
            key=f"{key}_unnote_{tag}",
            type="tertiary",
            icon=":material/close:",
            on_click=_untag if tag == NOTE else _tag,
            args=(*image, tag),
        )


def _own(image: Image, known: Sequence[str], key: str) -> None:
    tag_key, note_key = f"{key}_own_{image[1]}", f"{key}_note_{image[1]}"
    with st.form(f"{key}_own_form", border=False):
        st.selectbox(
            "Tag",
            [NOTE, *(tag for tag in known if tag != NOTE)],
            key=tag_key,
            accept_new_options=True,
            help="Choose one, or type your own and press Enter.",
        )
        st.text_area("Note", key=note_key, max_chars=MOST_NOTE, height=80, placeholder="May stay empty")
        may = access.may_launch()
        st.form_submit_button("Save", on_click=_save, args=(*image, tag_key, note_key), disabled=not may)


def _known(used: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*STANDARD, *sorted(used)]))


def _save(fingerprint: str, index: int, tag_key: str, note_key: str) -> None:
    tag = " ".join(str(st.session_state[tag_key] or NOTE).split())
    note = str(st.session_state[note_key] or "").strip()
    if tag in RESERVED:
        st.session_state[PROBLEM] = f"“{tag}” is a choice of the filter; call the tag something else."
    elif tag == NOTE and not note:
        st.session_state[PROBLEM] = "Write a note, or choose a tag."
    else:
        _tag(fingerprint, index, tag, note)


@access.only_launchers
def _tag(fingerprint: str, index: int, tag: str, note: str = "") -> None:
    try:
        resources.store().tag_image(fingerprint, index, tag, note)
    except (ConfigError, StoreError) as error:
        st.session_state[PROBLEM] = str(error)


@access.only_launchers
def _untag(fingerprint: str, index: int, tag: str) -> None:
    try:
        resources.store().untag_image(fingerprint, index, tag)
    except StoreError as error:
        st.session_state[PROBLEM] = str(error)
