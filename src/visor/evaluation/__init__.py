"""Evaluation of attacks and defences: metrics, tables and figures."""
