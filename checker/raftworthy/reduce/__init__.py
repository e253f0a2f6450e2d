"""Reductions of a search that keep its answer, each permitted by Z3 on the very specification explored.

`questions` asks whether a condition holds of every step from every state within the bounds' sizes, reachable
or not; `permits` derives from the answers what a search may leave out, and says why it may not.
`raftworthy.native.standing` leaves it out.
"""
