"""The pages of the dashboard; `streamlit run` starts here, see `perpo_dashboard.cli`."""

import streamlit as st

from perpo_dashboard import stored
from perpo_dashboard.show import PAGES, tell_unreadable

st.set_page_config(page_title="perpo", page_icon=":material/crop_free:", layout="wide")
pages = [
    st.Page(page.file, title=page.title, icon=page.icon, url_path=name, default=not place)
    for place, (name, page) in enumerate(PAGES.items())
]
chosen = st.navigation(pages, position="top")
st.title(chosen.title)
tell_unreadable(stored.unreadable())
chosen.run()
