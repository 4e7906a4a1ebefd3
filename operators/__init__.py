"""Bytewax operators over mergeable state, one per file; they know `state` and nothing else of ours."""
