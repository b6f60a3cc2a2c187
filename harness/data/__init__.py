"""Datasets: making them (pocket, jsonl, fineweb), checking them, and opening them for a run.

A dataset is one flat folder: token shards, a SentencePiece model and `dataset.json`, which holds the hash of
every file.
"""
