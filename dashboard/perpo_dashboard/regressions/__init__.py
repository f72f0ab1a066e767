"""Regressions over time."""
