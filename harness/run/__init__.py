"""One run: submission, plan, seeds and stages, verification of the scores, everything on record."""
