"""The board: tracks of lines, made of entries.

entries      which entries can be shown
tracks       entries become lines, and lines are ordered
gains        what lines gain on one another and of the gap
board        what is shown, as plain values
text         the board as table, Markdown, CSV, JSON
card         one entry as text: what it is made of
"""
