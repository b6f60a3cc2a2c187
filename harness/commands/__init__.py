"""What a user can ask for, one file a command; harness/cli.py loads the one that was asked for."""
