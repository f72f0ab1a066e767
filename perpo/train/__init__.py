"""perpo-train: from preference records to a checkpoint. Nothing is handed on: arguments must not import torch."""
