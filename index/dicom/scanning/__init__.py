"""Find the wanted elements in the bytes of a data set, within limits, without decoding their values."""
