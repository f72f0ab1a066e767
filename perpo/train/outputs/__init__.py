"""What a training leaves: weights, a model card, one merged checkpoint, and copies at services."""
