"""From numbers to statements: bits per byte, significance, certificate. Arrays in; no file, socket or clock.

Array names in harness/ end in their axes:

    T tokens of a text                  P probes: the positions a witness is asked about
    V entries of the vocabulary         R the probes that the random draw selected
    D documents                         L contexts of one batch
    E documents long enough to judge    C chunks
    S seeds                             B blocks: probes or tokens that may share noise
"""
