"""Trainings: their course, their data, what was looked at on the way."""
