"""One script per claim; each ends with one JSON line. Run with `python -m benchmarks.<name>`."""
