"""Quantisation of weights, one tensor at a time: scale, rotate, clip, round."""
