"""Measurements of golf itself, on this machine. golf never imports this, so it adds no counted bytes."""
