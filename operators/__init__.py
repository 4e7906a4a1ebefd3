"""Bytewax operators over mergeable state; one per file, knowing `state` and nothing else."""
