"""The searches for adversarial images: each has one signature, and so has the attack that it returns."""

from visor.evasion.autopgd import compile_autopgd
from visor.evasion.perturbation_vector import compile_perturbation_vector
from visor.evasion.pgd import compile_pgd
from visor.evasion.search import Search

SEARCHES: dict[str, Search] = {
    "pgd": compile_pgd,
    "autopgd": compile_autopgd,
    "perturbation_vector": compile_perturbation_vector,
}
