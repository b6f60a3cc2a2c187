"""What every stage runs on: the judge's socket, processes and devices, the size of the program."""
