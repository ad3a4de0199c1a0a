"""Training: pictures -> crops -> loss -> two optimisers -> run folder."""
