"""Ablations: a submission with each of its techniques switched off in turn, matched by steps, over seeds.

study.py defines what is compared and where the results are stored, pairs.py measures one (variant, seed),
loop.py runs the unfinished pairs, table.py computes means, intervals and paired differences, report.py
renders them.
"""
