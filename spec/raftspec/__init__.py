"""Raft as an executable specification, and the small language that it is written in.

`raftspec.raft` is the protocol; the other modules are the language. Everything
else (explorers, provers, trace checkers) is derived from what is said here.
"""
