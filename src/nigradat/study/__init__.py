"""A study: several methods on the same patients, from one command to one report."""
