"""Recipes: what one is, how it is read, and how its stages run; the YAML files that come with perpo."""
