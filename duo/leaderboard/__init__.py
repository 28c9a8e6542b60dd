"""The shared leaderboard: entries that anyone can add, and anyone can execute again."""
