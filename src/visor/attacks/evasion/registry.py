"""The searches for adversarial images: each has one signature, and so has the attack that it returns."""

from visor.attacks.evasion.adam import compile_adam
from visor.attacks.evasion.autopgd import compile_autopgd
from visor.attacks.evasion.loop import AttackFactory
from visor.attacks.evasion.pgd import compile_pgd

ATTACKS: dict[str, AttackFactory] = {
    "pgd": compile_pgd,
    "autopgd": compile_autopgd,
    "adam": compile_adam,
}
