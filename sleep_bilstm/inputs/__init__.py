"""Files to checked arrays: recordings, shards, splits, what the network sees."""
