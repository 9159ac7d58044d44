"""What a visitor of a shared lab meets before the pages: sign-in, a refusal, or a mistake in the secrets.

And afterwards, in the sidebar: who is signed in.
"""

from __future__ import annotations

import streamlit as st

from pages.shared import access, navigation
from pages.shared.access import Role
from pages.shared.words import plain

EXAMPLE = navigation.ROOT / ".streamlit" / "secrets.example.toml"

# A provider sends people back to the server's root: the address that was asked for waits in the browser.
_mount = st.components.v2.component(
    "cifar_lab.entrance",
    html="<span></span>",
    js="""
const KEY = "cifar_lab.wanted";
export default function ({ data }) {
  const here = location.pathname + location.search;
  if (!data.inside) {
    sessionStorage.setItem(KEY, here);
    return;
  }
  const wanted = sessionStorage.getItem(KEY);
  sessionStorage.removeItem(KEY);
  // Only from the root: whoever went on to a page meanwhile stays there.
  const root = location.pathname.replace(/\\/?$/, "/");
  // Below its own origin, whatever the text says.
  if (wanted && wanted !== here && wanted.startsWith(root)) location.replace(location.origin + wanted);
}
""",
)


def show() -> None:
    """The page instead of the pages, for whoever may not look."""
    known = access.policy()
    if known.mistake:
        _mistake(known.mistake)
    elif st.user.get("is_logged_in") is True:
        _refusal()
    else:
        _sign_in()


def _mistake(what: str) -> None:
    st.title("Nobody can come in yet", anchor=False)
    st.error(plain(what), icon=":material/lock:")
    st.markdown(
        "The secrets file decides who may use this lab, and it has a mistake. Until it is corrected and the "
        "server started again, nobody can sign in. Example:"
    )
    st.code(EXAMPLE.read_text(encoding="utf-8"), language="toml")
    st.markdown("See `docs/sharing.md`. If you use the lab alone, you need no such file.")


def _sign_in() -> None:
    st.title("CIFAR Lab", anchor=False)
    st.markdown(
        "Here a class trains small networks on small pictures, and studies what they get wrong. "
        "Sign in with the account whose address your teacher has."
    )
    st.button("Sign in", type="primary", icon=":material/login:", key="sign_in", on_click=st.login)
    _mount(key="entrance", data={"inside": False}, height="content")


def _refusal() -> None:
    st.title("You are not on the list", anchor=False)
    address = access.verified_address(st.user)
    if address:
        st.markdown(
            f"You are signed in as **{plain(address)}**, and this lab is not shared with that address. Ask "
            "whoever runs it, or sign out and take another account."
        )
    else:
        st.markdown(
            "You are signed in, but your provider has verified no e-mail address of yours, so you can't be "
            "looked up. Verify it there, or sign out and take another account."
        )
    _sign_out()


def _sign_out() -> None:
    st.button("Sign out", icon=":material/logout:", key="sign_out", on_click=st.logout)


def who() -> None:
    """The signed-in visitor, for the sidebar; nothing where nobody signs in."""
    if not access.policy().shared:
        return
    may = "may launch" if access.role() is Role.LAUNCH else "may look, and change nothing"
    st.markdown(f":small[:gray[Signed in]]  \n**{plain(access.verified_address(st.user))}**  \n:small[{may}]")
    _sign_out()
    _mount(key="entrance", data={"inside": True}, height="content")
