"""A button that queues something once, however often and whenever it is clicked.

A token stands for one launch. A second click that comes while the first is being served finds the token
spent, and one that comes after the page was left finds no button of its name. A click is remembered until
it is served, so that a run of the page that is broken off by another click loses nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from cifar_core.errors import CifarLabError
from pages.shared import access, resources
from pages.shared.words import message, plain


@dataclass(frozen=True)
class LaunchButton:
    """The launches of one page; `name` begins the keys of its state and of its button."""

    name: str

    @property
    def _token(self) -> str:
        return f"_{self.name}_token"

    @property
    def _pressed(self) -> str:
        return f"_{self.name}_pressed"

    def renew(self, *, arrived: bool) -> None:
        """Take a new token where the page is opened anew, or the last one was thrown away."""
        if arrived or self._token not in st.session_state:
            st.session_state[self._token] = uuid.uuid4().hex

    def throw_away(self) -> None:
        """After a launch that does not leave the page: the next button launches again."""
        st.session_state.pop(self._token, None)

    def button(self, label: str, start: Callable[[], str] | None, *, problem: str) -> str | None:
        """The button, with what is wrong above it; what `start` gave once a click has been served.

        Args:
            start: puts it into the queue and gives its id or ids, "a,b", calling nothing of Streamlit; None
                where it can't start. Never called for whoever may only look.
            problem: what is wrong; "" for nothing.
        """
        token = st.session_state[self._token]
        if problem:
            st.error(plain(problem), icon=":material/block:")
        access.button(
            label,
            key=f"{self.name}_launch_{token}",
            type="primary",
            icon=":material/play_arrow:",
            disabled=start is None,
            width="stretch",
            on_click=self._press,
            args=(token,),
        )
        if st.session_state.get(self._pressed) != token:
            return None
        # What was typed just before the click may not be allowed: the click must not wait until it is.
        started = self._started(token, start) if start and access.may_launch() else None
        st.session_state.pop(self._pressed, None)
        return started

    def _press(self, token: str) -> None:
        """Not served here, since settings typed just before the click are taken over by the page's run."""
        st.session_state[self._pressed] = token

    def _started(self, token: str, start: Callable[[], str]) -> str | None:
        spent: dict[str, str] = st.session_state.setdefault(f"_{self.name}_spent", {})
        try:
            if token not in spent:
                # Nothing of Streamlit between these lines: a click that comes now cannot interrupt them.
                spent[token] = start()
                access.sign(spent[token])
            resources.supervisor()
        except CifarLabError as error:
            st.error(message(error))
            return None
        return spent[token]
