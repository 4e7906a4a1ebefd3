"""Bytewax sources and sinks. They know `state` for wire formats and nothing else of ours."""
