"""The leaderboard: rows and columns, sorted or as differences, as files."""
