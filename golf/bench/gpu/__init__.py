"""`just gpu`: what golf does on a GPU, measured in one call of under nine minutes, and in a second."""
