"""With 99 % confidence, at most G bits per byte of a score are unearned (docs/certificate.md).

    reference_model.py  the judge's own causal probabilities of the text
    sampling.py         which tokens the witness is asked about: ReportedScore, SamplingPlan, draw
    responses.py        what the witness responded: Responses, BoundaryPair
    bound.py            G, for any program
    detection.py        tests that fail where no kind of honest noise explains a gain
    certificate.py      certify: all of the above as one frozen object for verdict.json
    simulation/         coverage, power and false alarms on real numbers:
                        python -m harness.scoring.certificate.simulation

Except for the simulation, these are pure functions of numpy arrays.
"""
