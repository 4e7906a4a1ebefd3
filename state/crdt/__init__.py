"""Replicated data types that merge without a centre: conflict-free replicated data types."""
