"""Numbers: what a router reaches and what it costs."""
