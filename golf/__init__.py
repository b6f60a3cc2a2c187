"""golf: the contestant. It trains, packs and scores a small language model, and talks to the judge over one
socket.

Families (model, optim, quant, codec, windows) do not know each other; train, pack, score and `__main__` join
them. Nothing here imports the harness: the protocol is all that the two sides share."""
