"""Files, strict readers, errors, and text for people. Knows nothing of the challenge."""
