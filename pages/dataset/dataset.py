"""The Dataset page: where the images come from, what they look like, and what augmentation does to them."""

from __future__ import annotations

import streamlit as st

from pages.dataset import augmentation, colour, own, samples, similarity, source
from pages.shared.waiting import images_or_wait

TABS = {
    "Images": samples.images,
    "Classes": samples.classes,
    "Light and colour": colour.show,
    "Map": similarity.image_map,
    "Duplicates": similarity.duplicates,
    "Augmentation": augmentation.show,
}


def page() -> None:
    st.title("Dataset", anchor=False)
    name = source.choose()
    if not source.available(name):
        return
    dataset = images_or_wait(name)
    source.facts(dataset)
    own.about(name)
    tabs = st.tabs(list(TABS), key="tab", bind="query-params")
    for tab, show in zip(tabs, TABS.values(), strict=True):
        if tab.open:
            with tab:
                show(dataset)


page()
