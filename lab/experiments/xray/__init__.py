"""X-rays: one scene of a few clients against a running server, recorded on both sides on one time axis."""
