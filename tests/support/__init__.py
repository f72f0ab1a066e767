"""What tests of several folders share: where things lie, servers, fixtures that their conftest.py takes."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

SHARED = ROOT.parent / "shared"
"""Records and cases that are no part of the project; tests that need them skip where they are absent."""
