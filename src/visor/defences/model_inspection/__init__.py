"""Methods that question a trained network: is there a backdoor in it, where does it look, can it be removed?"""
