"""Pure dataflow graphs: streams in, streams out, no decisions about input or output."""
