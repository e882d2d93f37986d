"""Attackers who know the defence (Tramèr et al. 2020, arXiv 2002.08347): a defence is worth what it stops of them.

``key_search`` changes the key of a backdoor that is in the network already; ``adversarial_embedding`` trains the
network. Attackers who supply training images are triggers (``adaptive_blend``, ``adaptive_patch``).
"""
