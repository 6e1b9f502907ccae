"""From probabilities to events, numbers and figures."""
