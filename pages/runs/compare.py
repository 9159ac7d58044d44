"""Redirect of the old address `/compare?runs=a,b`: to Runs, or to Mistakes if it asks for the images."""

import streamlit as st

from pages.shared import navigation

GROUPS = {"only A is right": "broken", "only B is right": "fixed", "both are wrong": "both wrong"}
"""Choices of the old parameter `kind` and the groups of Mistakes that show the same images."""


def page() -> None:
    asked = st.query_params
    runs = [run for part in asked.get_all("runs") for run in part.split(",") if run]
    if asked.get("shown") != "Images":
        navigation.go("runs", **({"runs": ",".join(runs)} if runs else {}))
    a, b = (asked.get(name) or run for name, run in zip("ab", [*runs, "", ""], strict=False))
    found = {"view": "Two runs", "a": a, "b": b, "class": asked.get("class", "all")}
    found["group"] = GROUPS.get(asked.get("kind", ""), "")
    navigation.go("gallery", **{name: value for name, value in found.items() if value not in ("", "all")})


page()
