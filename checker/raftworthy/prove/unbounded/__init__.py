"""Raft's safety for any number of servers, any terms, logs of any length, from the specification's graph."""
