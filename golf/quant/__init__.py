"""How weights become few bytes: scale -> rotate -> clip -> round, for one tensor at a time. Knows no model
and no file."""
