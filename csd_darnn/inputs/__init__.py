"""Files become checked recordings with units and clock; windows of them."""
