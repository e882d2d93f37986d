"""Attacks on face recognisers: impersonation, dodging, misclassification, and their transfer."""
