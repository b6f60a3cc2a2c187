"""What the judge asks for: describe, train, pack and score, one file a stage."""
