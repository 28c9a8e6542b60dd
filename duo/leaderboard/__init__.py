"""The shared leaderboard: entries that anyone can add, and anyone can execute again.

submit       a finished run becomes entries
verify       an entry is executed again and compared
entry/       what an entry is, and what is admitted
board/       tracks of lines, made of entries
page         the board as one HTML file
"""
