"""From a volume to the two nigrosome-1 centres."""
