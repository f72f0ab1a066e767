"""Yes/no tasks for lmms-eval: POPE and the tiny world's objects."""
