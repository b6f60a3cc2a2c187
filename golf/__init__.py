"""golf, the contestant: trains, packs and scores a small language model, and talks to the
judge over a socket.

The packages model, optim, quant and storage do not import each other; golf/stages and `__main__` combine
them. Nothing here imports the harness: the two sides share only the protocol (docs/protocol.md).
"""
