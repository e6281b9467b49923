"""Why a model said what it said: maps, features, and how far they can be trusted."""
