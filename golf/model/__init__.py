"""The network: layers, attention, input features, the plan of visits, and the one forward that everything
uses."""
