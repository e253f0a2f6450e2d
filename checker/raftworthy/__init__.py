"""Is this Raft right? Explores the specification, and replays traces of real servers against it."""
