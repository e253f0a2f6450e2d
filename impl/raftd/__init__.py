"""A Raft server: a deterministic core without I/O, durable storage, TCP, a client, a simulator.

Written from the paper (Ongaro and Ousterhout, 2014), never from the executable
specification beside it, which checks it.
"""
