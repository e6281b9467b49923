"""nigradat: striatal dopamine-transporter uptake (SBR) of both sides from nigral MRI, with calibrated intervals.

Research only. The verbs are functions here too; heavy libraries are imported when a verb is called.
"""

__version__ = "0.1.0"
