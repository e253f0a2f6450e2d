"""Clients' operations against the servers' committed log, which says in which order they took effect."""
