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

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import visiting
from playwright.sync_api import BrowserContext

from perpo_dashboard.show import PAGES

HEIGHT = 1600
"""Pixels that a picture has at most: what is below is left out."""


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
            for width in (1440, 900):
                for dark in (False, True):
                    file = args.output / f"dashboard-{page}-{'dark' if dark else 'light'}-{width}.png"
                    file.write_bytes(_picture(browser, dashboard, page, args.state, width, dark))
                    print(file)
        dashboard.stop()


def _picture(
    browser: BrowserContext, dashboard: visiting.Dashboard, page: str, state: str, width: int, dark: bool
) -> bytes:
    visitor = visiting.visitor(browser, dashboard, width=width, dark=dark)
    visitor.open(f"{visitor.address(page)}?{state}")
    content = visitor.page.get_by_test_id("stMainBlockContainer").bounding_box()
    height = min(HEIGHT, round((content or {"height": 900})["height"]) + 60)
    visitor.page.set_viewport_size({"width": width, "height": height})
    visitor.settle()
    taken = Image.open(io.BytesIO(visitor.page.screenshot()))
    visitor.page.close()
    data = io.BytesIO()  # a palette of 256 colours is a third of the size, and shows no difference on flat pages
    taken.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(data, "PNG", optimize=True)
    return data.getvalue()


if __name__ == "__main__":
    main()
