"""From DaT-SPECT to the SBR of each side."""
