"""What an evasion attack maximises, for detectors and for recognisers."""
