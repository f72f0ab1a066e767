"""PerPO: perceptual preference optimisation of vision-language models."""

__version__ = "0.1.0"
