"""Compare models: how much each can serve under each workload, at what cost, and how reliable the figures are."""
