"""The certificate of a score: with 99 % confidence, at most G bits per byte of it are unearned (docs/certificate.md).

    floor.py        the judge's own causal prices of the text
    coins.py        which tokens to ask: Scored, Plan, draw
    answers.py      what the witness said: Answers, Border
    bound.py        G, for any program
    accuse.py       tests that accuse, for honest noise that is symmetric
    certificate.py  certify: everything above as one frozen object for verdict.json
    simulate.py     coverage, power and false alarms on real numbers: python -m harness.certificate.simulate

Pure functions of numpy arrays: no file, no socket, no clock.
"""
