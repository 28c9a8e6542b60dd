"""The seam: what a router is, sees and pays."""
