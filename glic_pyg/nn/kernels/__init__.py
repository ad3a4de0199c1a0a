"""Fused paths for operators whose meaning is a `MessagePassing` layer."""
