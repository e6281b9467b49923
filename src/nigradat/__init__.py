"""nigradat."""
