"""The network: layers, attention, input features, the order of layer steps, and one forward for every use."""
