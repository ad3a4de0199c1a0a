"""Compiled code for operators whose meaning is plain torch."""
