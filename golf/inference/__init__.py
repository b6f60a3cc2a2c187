"""From weights to predictions of the judge's text, and learning from text that was scored."""
