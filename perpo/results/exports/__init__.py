"""Samples of stored runs in the formats of other programs, and as questions to sample answers to."""
