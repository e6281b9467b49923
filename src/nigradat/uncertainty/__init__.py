"""Spread of a prediction, and the step that turns it into an interval with a promise."""
