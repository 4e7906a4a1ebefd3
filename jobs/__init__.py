"""What a user runs: settings, connectors and a flow. `python -m jobs` lists them."""
