"""Which model for which work, how far it goes, what it costs, and whether the answer can be trusted."""
