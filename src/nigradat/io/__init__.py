"""Bytes in, volumes, pairs and cohorts out, and back."""
