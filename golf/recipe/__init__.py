"""Recipes: the fields, their ranges and defaults, and the strict reader."""
