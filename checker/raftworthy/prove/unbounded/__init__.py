"""Raft's safety for any number of servers, any terms, logs of any length: Z3 on the specification's own expressions."""
