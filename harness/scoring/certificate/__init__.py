"""The certificate of a score: with 99 % confidence, at most G bits per byte of it are unearned
(docs/certificate.md).

    floor.py        the judge's own causal prices of the text
    coins.py        which tokens to ask: Scored, Plan, draw
    answers.py      what the witness said: Answers, Border
    bound.py        G, for any program
    accuse.py       tests that accuse, where no kind of honest noise that they know explains a gain
    certificate.py  certify: everything above as one frozen object for verdict.json
    simulate.py     coverage, power and false alarms on real numbers, in the worlds of worlds.py, drawn by figure.py:
                    python -m harness.scoring.certificate.simulation.simulate

Pure functions of numpy arrays, but for the last: no file, no socket, no clock.
"""
