"""Trainings, evaluations and graphs together: what compares models."""
