"""What every folder needs and no folder owns: the same bytes in all five."""
