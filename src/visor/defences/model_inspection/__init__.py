"""Methods that inspect a trained network: find its backdoor, show what it depends on, remove it."""
