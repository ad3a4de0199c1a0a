"""Training: pictures -> crops -> loss -> optimiser -> run folder."""
