"""Pictures of every page of the dashboard, light and dark, wide and narrow, as PNG files for the documentation.

Run: python tools/screenshots.py --results DIR --output docs/images, over a folder that has something for every page.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import visiting
from playwright.sync_api import BrowserContext

from perpo_dashboard.shared.links import PAGES

HEIGHT = 1600
"""Pixels that a picture has at most: what is below is left out."""


MOST_BYTES = 300_000
"""What is larger gets a palette of 256 colours, which shows on photographs alone."""


def main() -> None:
    """Start a dashboard, look at every page, and write what is seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="what is shown")
    parser.add_argument("--output", type=Path, default=Path("docs/images"), help="folder of the pictures")
    parser.add_argument("--page", choices=list(PAGES), action="append", help="only this page (default: all)")
    parser.add_argument("--state", default="", help="what follows the question mark of the address of each page")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")  # the pictures lie there
    with tempfile.TemporaryDirectory() as folder, visiting.chromium() as browser:
        dashboard = visiting.start(args.results, Path(folder) / "log", cache=cache)
        for page in args.page or PAGES:
            state = _ballot(browser, dashboard) if page == "vote" else args.state
            for width in (1440, 900):
                for dark in (False, True):
                    file = args.output / f"dashboard-{page}-{'dark' if dark else 'light'}-{width}.png"
                    file.write_bytes(_picture(browser, dashboard, page, state, width, dark))
                    print(file)
        dashboard.stop()


def _ballot(browser: BrowserContext, dashboard: visiting.Dashboard) -> str:
    """Set a vote up; what follows the question mark of a voter's address."""
    visitor = visiting.visitor(browser, dashboard)
    visitor.open("compare")
    visitor.open("vote", show="new", a=visitor.state["a"], b=visitor.state["b"])
    visitor.page.get_by_role("button", name="Begin the vote").click()
    visitor.page.get_by_role("textbox", name="Your name").wait_for()
    return urlencode({"study": visitor.state["study"], "voter": "Ada"})


def _picture(
    browser: BrowserContext, dashboard: visiting.Dashboard, page: str, state: str, width: int, dark: bool
) -> bytes:
    visitor = visiting.visitor(browser, dashboard, width=width, dark=dark)
    visitor.open(f"{visitor.address(page)}?{state}")
    content = visitor.page.get_by_test_id("stMainBlockContainer").bounding_box()
    height = min(HEIGHT, round((content or {"height": 900})["height"]) + 60)
    visitor.page.set_viewport_size({"width": width, "height": height})
    visitor.settle()
    taken = Image.open(io.BytesIO(visitor.page.screenshot())).convert("RGB")
    visitor.page.close()
    whole = _png(taken)
    return (
        whole if len(whole) <= MOST_BYTES else _png(taken.quantize(palette=_palette(taken), dither=Image.Dither.NONE))
    )


def _palette(picture: Image.Image) -> Image.Image:
    """256 colours: the most frequent ones, which are the page's own, and those that stand for all others."""
    counted = picture.getcolors(picture.width * picture.height) or []
    frequent = [colour for _, colour in sorted(counted, reverse=True)[:64]]
    others = picture.quantize(192, method=Image.Quantize.FASTOCTREE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(part for colour in frequent for part in colour), *others[: 3 * 192]])
    return palette


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    return data.getvalue()


if __name__ == "__main__":
    main()
