"""Products of sellers and their pictures, one by one and by the feed."""
