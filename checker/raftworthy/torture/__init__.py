"""Real servers under every fault that Raft has to bear."""

from raftworthy.torture.running import Tortured, torture

__all__ = ["Tortured", "torture"]
