"""The command that the authors published, translated and held against the model and the run."""
