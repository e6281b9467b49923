"""The BIDS App: a data set of scans in; derivatives, a page for each visit and a packed cohort out."""
