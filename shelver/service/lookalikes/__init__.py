"""Products that look alike."""
