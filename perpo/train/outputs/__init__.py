"""Outputs of a training: weights, a model card, one merged checkpoint, and copies at services."""
