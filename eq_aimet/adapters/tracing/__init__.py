"""From a network to a plain model: one tracer for all libraries, which runs `forward` on symbolic values."""
