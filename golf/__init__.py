"""golf, the contestant: trains, packs and scores a small language model, and talks to the
judge over a socket.

The packages model, optim, quant and storage do not import each other; golf/training and golf/stages combine
them. Nothing here imports the harness: the two sides share only the protocol (docs/protocol.md).

In docstrings, "Neutral" names the value that switches a technique off, and "Source" the submission or paper
that it comes from. Names of tensors end in their axes (legend: golf/model/layers.py).
"""
