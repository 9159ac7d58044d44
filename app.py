"""CIFAR Lab in the browser: `streamlit run app.py`. Only the router; the pages stand in `pages/`."""

import streamlit as st

from pages.shared import library, navigation, server, sidebar

if server.is_visit():
    st.set_page_config(page_icon="🔬", layout="wide")
    st.logo(navigation.LOGO, size="large")
    page = navigation.navigation()
    sidebar.show()
    page.run()
else:
    # `streamlit run` imports this file once, to find the application with its start and its end.
    app = st.App(__file__, lifespan=server.lifespan, routes=[library.route()])
