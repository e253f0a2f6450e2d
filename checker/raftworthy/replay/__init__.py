"""Replay: is what the servers did a behaviour of the specification?"""
