"""From weights to numbers about the judge's text, and learning from what was scored."""
