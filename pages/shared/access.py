"""Who may do what: the one place that decides it.

Alone on a machine nobody signs in and everything is allowed. A secrets file with the sections [auth]
(Streamlit's sign-in) and [sharing] (ours) makes the lab shared: visitors sign in, and lists of e-mail
addresses say who may launch and who may only look. A mistake in these sections lets nobody in.

That a page has disabled a button protects nothing by itself: the press may come from a page drawn earlier,
or from no button at all. `button` and `only_launchers` ask again at the moment of the press.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ParamSpec

import streamlit as st
from streamlit.errors import StreamlitSecretNotFoundError

P = ParamSpec("P")
SECTION = "sharing"
LISTS = ("may_launch", "may_look")
ANYBODY = "*"
ENTRY = re.compile(r"[^@\s,]*@[^@\s,]+\.[^@\s,]+")
"""An address, or @ and a domain for all of its addresses."""
AUTH_KEYS = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")
CALLBACK = "oauth2callback"
LEAST_SECRET = 32
"""Characters. Who guesses the secret can sign a cookie with any name in it."""
ANY_TENANT = re.compile(r"//login\.microsoftonline\.com/(common|organizations|consumers)/")
HERE = ("localhost", "127.0.0.1", "::1")
WHY_NOT = "You may look at everything. Only those who may launch can change something."


class Role(Enum):
    """What a visitor may do."""

    OWNER = "everything: nobody signs in, so it is whoever sits at the machine"
    LAUNCH = "look, launch, stop, delete, tag; but name no path of the machine"
    LOOK = "look, and change nothing"
    STRANGER = "nothing"

    @property
    def may_look(self) -> bool:
        return self is not Role.STRANGER

    @property
    def may_launch(self) -> bool:
        """Launch, stop, resume, delete, tag, fetch data: whatever changes what others see."""
        return self in (Role.OWNER, Role.LAUNCH)

    @property
    def may_name_paths(self) -> bool:
        """Have files of the machine read by their path."""
        return self is Role.OWNER


# --- What the secrets say ------------------------------------------------------------------------


@dataclass(frozen=True)
class Policy:
    """Whether the lab is shared, and with whom. With a `mistake`, with nobody."""

    shared: bool = False
    may_launch: tuple[str, ...] = ()
    may_look: tuple[str, ...] = ()
    mistake: str = ""

    def role(self, user: Mapping[str, Any]) -> Role:
        """Of a visitor with these claims, as `st.user` has them."""
        if self.mistake:
            return Role.STRANGER
        if not self.shared:
            return Role.OWNER
        address = verified_address(user)
        if _stands_in(self.may_launch, address):
            return Role.LAUNCH
        return Role.LOOK if _stands_in(self.may_look, address) else Role.STRANGER


def verified_address(user: Mapping[str, Any]) -> str:
    """The e-mail address in lower case; "" where nobody is signed in or it was not verified."""
    verified = user.get("email_verified", True)  # not every provider says
    if user.get("is_logged_in") is not True or verified not in (True, "true"):
        return ""
    email = user.get("email")
    return email.strip().lower() if isinstance(email, str) else ""


def _stands_in(entries: tuple[str, ...], address: str) -> bool:
    if not address:
        return False
    domain = address[address.rfind("@") :]
    return any(entry in (ANYBODY, address, domain) for entry in entries)


def policy_of(secrets: Mapping[str, Any], base: str = "") -> Policy:
    """What the content of a secrets file says. `base`: the path under which the server is reached."""
    if SECTION not in secrets and "auth" not in secrets:
        return Policy()
    try:
        lists = _lists(secrets.get(SECTION))
        _check_auth(secrets.get("auth"), base)
    except ValueError as error:
        return Policy(mistake=str(error))
    return Policy(shared=True, may_launch=lists.get("may_launch", ()), may_look=lists.get("may_look", ()))


def _lists(section: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(section, Mapping):
        raise ValueError("There is a section [auth], but no section [sharing], which says who may do what.")
    if unknown := set(section) - set(LISTS):
        known = " and ".join(LISTS)
        raise ValueError(f"[sharing] has the unknown key {min(unknown)!r}; known are {known}.")
    if "may_launch" not in section:
        raise ValueError("[sharing] has no may_launch: list at least your own address.")
    return {name: _entries(name, section[name]) for name in LISTS if name in section}


def _entries(name: str, given: Any) -> tuple[str, ...]:
    """The entries in lower case. A message names places, not addresses: anybody may read it."""
    if not isinstance(given, list):
        raise ValueError(f'{name} must be a list, as in {name} = ["teacher@school.org"].')
    if not given:
        raise ValueError(f"{name} is an empty list: name somebody, or leave may_look out.")
    entries = tuple(entry.strip().lower() if isinstance(entry, str) else "" for entry in given)
    for place, entry in enumerate(entries, 1):
        if entry == ANYBODY and name == "may_launch":
            raise ValueError('may_launch can\'t hold "*": name addresses, or a domain as "@school.org".')
        if entry != ANYBODY and not ENTRY.fullmatch(entry):
            raise ValueError(f'{name}: entry {place} is no e-mail address, and no domain as "@school.org".')
    return entries


def _check_auth(section: Any, base: str) -> None:
    if not isinstance(section, Mapping):
        raise ValueError("There is a section [sharing], but no section [auth]: nobody could sign in.")
    for key in AUTH_KEYS:
        if not isinstance(section.get(key), str) or not section[key].strip():
            raise ValueError(f"[auth] needs {key}, a text.")
    if len(section["cookie_secret"]) < LEAST_SECRET:
        raise ValueError(f"cookie_secret in [auth] must have at least {LEAST_SECRET} random characters.")
    if ANY_TENANT.search(section["server_metadata_url"]):
        raise ValueError(
            "server_metadata_url in [auth] admits accounts of every Microsoft tenant, which can claim any "
            "address: put your own tenant's id into it."
        )
    _check_redirect(section["redirect_uri"], base)


def _check_redirect(address: str, base: str) -> None:
    parts = urllib.parse.urlsplit(address)
    expected = f"/{base.strip('/')}/{CALLBACK}" if base.strip("/") else f"/{CALLBACK}"
    if parts.path != expected:
        raise ValueError(f"redirect_uri in [auth] must end in {expected}, after the address of the server.")
    if parts.scheme != "https" and parts.hostname not in HERE:
        raise ValueError("redirect_uri in [auth] must begin with https://, except on this very machine.")


# --- This server, this visitor -------------------------------------------------------------------

_read: list[tuple[Any, list[str], Policy | None]] = []
"""The secrets that were looked for, the places of their files, and what they say; None without a file."""


def policy() -> Policy:
    """What this server's secrets say. Changing a file that was read needs a restart.

    One that is written while the server runs is found: asking whether it is there takes microseconds.
    """
    if _read:
        secrets, places, known = _read[0]
        if secrets is st.secrets and (known or not _is_there(places)):
            return known or Policy()
    places = list(st.get_option("secrets.files"))
    _read[:] = [(st.secrets, places, found := _from_secrets(places))]
    return found or Policy()


def _is_there(places: list[str]) -> bool:
    return any(os.path.exists(place) for place in places)


def _from_secrets(places: list[str]) -> Policy | None:
    """None where there is no secrets file."""
    try:
        if not st.secrets.load_if_toml_exists():
            return Policy(mistake="The secrets file is no valid TOML.") if _is_there(places) else None
        found = policy_of(st.secrets.to_dict(), st.get_option("server.baseUrlPath") or "")
    except (OSError, UnicodeDecodeError, StreamlitSecretNotFoundError) as error:
        return Policy(mistake=f"The secrets can't be read ({type(error).__name__}).")
    return Policy(mistake=obstacle) if found.shared and (obstacle := _obstacle()) else found


def _obstacle() -> str:
    """What of this server makes sign-in impossible or worthless; "" for nothing."""
    if not _installed("authlib") or not (_installed("httpx2") or _installed("httpx")):
        return 'What sign-in needs is not installed: pip install ".[sharing]"'
    if st.get_option("server.trustedUserHeaders"):
        return "The setting server.trustedUserHeaders lets a request claim any address: remove it."
    return ""


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def role() -> Role:
    """What this visitor may do, now."""
    known = policy()
    return known.role(st.user) if known.shared else known.role({})


def may_launch() -> bool:
    """Whether this visitor may change something, now."""
    return role().may_launch


# --- What changes something ----------------------------------------------------------------------


def only_launchers(change: Callable[P, object]) -> Callable[P, None]:
    """A callback that changes something; whoever may not is told so, and nothing is done."""

    @functools.wraps(change)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        if may_launch():
            change(*args, **kwargs)
        else:
            st.toast(WHY_NOT, icon=":material/visibility:")

    return guarded


def button(
    label: str,
    *,
    on_click: Callable[..., object] | None = None,
    disabled: bool = False,
    help: str | None = None,  # noqa: A002 - the name of st.button's argument
    **options: Any,
) -> bool:
    """`st.button` for what changes something: for whoever may only look it is disabled, with the reason."""
    allowed = may_launch()
    pressed = st.button(
        label,
        on_click=only_launchers(on_click) if on_click else None,
        disabled=disabled or not allowed,
        help=help if allowed else WHY_NOT,
        **options,
    )
    return pressed and allowed


def sign(job_ids: str) -> None:
    """Write into the events of these runs or searches, "a,b", who launched them, where that is known.

    Raises:
        StoreError: it cannot be written to.
    """
    if policy().shared:
        from pages.shared import resources

        for job_id in job_ids.split(","):
            resources.store().event(job_id, "launched", f"by {verified_address(st.user)}")
