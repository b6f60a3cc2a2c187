"""The four stages that the judge runs: describe, train, pack and score."""
