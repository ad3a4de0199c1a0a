"""How good the pictures and how small the files are."""
