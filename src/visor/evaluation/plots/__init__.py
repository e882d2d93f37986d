"""Figures: one file a job."""
