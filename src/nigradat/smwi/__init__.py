"""From the echoes of a gradient-echo series to a susceptibility map-weighted image (SMWI)."""
