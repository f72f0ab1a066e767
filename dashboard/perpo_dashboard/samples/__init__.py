"""Samples of one or two runs, one by one."""
