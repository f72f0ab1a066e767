"""A vision-language model and how it reads. Nothing is handed on: looking at a family must not import torch."""
