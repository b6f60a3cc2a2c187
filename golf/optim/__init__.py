"""Optimizers, their schedules and the weight average; sees named parameters, knows no model."""
