"""Values and protocols: no Bytewax, no sockets, no clock, no randomness that is not passed in."""
