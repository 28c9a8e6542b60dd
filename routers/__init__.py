"""The routers that ship with duo, one file each; they may import duo, never the reverse."""
