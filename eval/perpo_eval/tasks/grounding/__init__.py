"""Referring expression tasks for lmms-eval: RefCOCO/+/g and the tiny world's RefShapes/+/g."""
