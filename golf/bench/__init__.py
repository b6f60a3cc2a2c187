"""Measurements of golf itself, on the machine at hand. Nothing in golf imports this, so it costs no code
byte."""
