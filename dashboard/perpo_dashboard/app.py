"""The pages of the dashboard; `streamlit run` starts here, see `perpo_dashboard.cli`."""

from typing import Any

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from perpo.errors import PerpoError
from perpo_dashboard.shared import stored
from perpo_dashboard.shared.links import PAGES
from perpo_dashboard.shared.text import reason, tell_unreadable


def _page(name: str, address: str, **more: Any) -> StreamlitPage:
    return st.Page(PAGES[name].file, title=PAGES[name].title, icon=PAGES[name].icon, url_path=address, **more)


st.set_page_config(page_title="perpo", page_icon="🔲", layout="wide")
first, *others = PAGES
pages = [_page(first, "", default=True), *(_page(name, name) for name in others)]
pages.append(_page(first, first, visibility="hidden"))  # it has no name in its address, and is found by its name too
chosen = st.navigation(pages, position="top")
st.title(chosen.title)
tell_unreadable(stored.unreadable())
try:
    chosen.run()
except PerpoError as error:  # a file that changed while the page was made
    st.error(reason(error), icon=":material/error:")
