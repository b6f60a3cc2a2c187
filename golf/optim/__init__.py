"""Optimizers, their schedules and weight averaging, for any set of named parameters."""
