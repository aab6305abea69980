"""Whether a sweep would start: what it asks of a machine before it does, by the same code, one finding a line."""
