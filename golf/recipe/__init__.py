"""Recipes: their fields with ranges and defaults, and a strict YAML reader."""
