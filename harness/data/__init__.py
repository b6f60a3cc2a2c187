"""Datasets: making them (pocket, docs, fineweb), checking them, and opening them for a run.

A dataset is one flat folder: token shards, a SentencePiece model and `dataset.json`, which names the hash of
everything. Not covered: what a contestant does with the tokens.
"""
