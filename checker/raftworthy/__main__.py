"""`python -m raftworthy` is the command `raftworthy`."""

from raftworthy.cli import main

main()
