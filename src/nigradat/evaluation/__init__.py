"""Comparison of methods: scores with intervals over patients, tables and figures."""
