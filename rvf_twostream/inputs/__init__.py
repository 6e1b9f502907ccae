"""Files to checked arrays: readers, preprocessing, flow, splits, clips."""
