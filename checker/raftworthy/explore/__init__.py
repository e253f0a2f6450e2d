"""Explore: every behaviour of the specification within bounds, and what goes wrong without a rule."""
