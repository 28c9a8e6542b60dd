"""The board: tracks of lines made of entries."""
