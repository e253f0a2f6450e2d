"""Questions about given logs: who can lead with them, and whether they can have come about."""
