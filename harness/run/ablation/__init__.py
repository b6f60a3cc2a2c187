"""Ablations: a submission with each of its techniques switched off in turn, matched by steps, over seeds.

study.py says what is compared and where its results lie, pairs.py measures one (variant, seed), loop.py does
what is unfinished, table.py turns results into means, intervals and paired differences, report.py shows them.
"""
