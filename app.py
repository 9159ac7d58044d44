"""CIFAR Lab in the browser: `streamlit run app.py`. Only the router; the pages stand in `pages/`."""

import streamlit as st

from cifar_core.errors import StoreError
from pages.shared import access, library, navigation, server, sidebar, sign_in
from pages.shared.words import message

if server.is_visit():
    st.set_page_config(page_icon="🔬", layout="wide", initial_sidebar_state=sidebar.WIDTH)
    st.logo(navigation.LOGO, size="large")
    inside = access.role().may_look
    page = navigation.navigation(hidden=not inside)  # asked for in any case: it knows the addresses
    try:
        if inside:
            sidebar.show()
            page.run()
        else:
            sign_in.show()
    except StoreError as error:  # any page may meet it; what was drawn before it stays
        st.error(message(error))
else:
    # `streamlit run` imports this file once, to find the application with its start and its end.
    app = st.App(__file__, lifespan=server.lifespan, routes=[library.route()])
