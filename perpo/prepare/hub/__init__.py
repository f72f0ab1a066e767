"""Rows of data sets of the hub."""
