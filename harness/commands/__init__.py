"""What a user can ask for: one file a command, loaded by harness/cli.py when it is asked for.

`options.py` holds what commands share on the command line; `bench/` measures the judge itself.
"""
