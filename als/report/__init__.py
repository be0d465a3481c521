"""Records and predictions -> tables, charts and pictures."""
