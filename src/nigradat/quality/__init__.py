"""Knowing when not to answer: what is wrong with a pair, and how unlike the training it is."""
