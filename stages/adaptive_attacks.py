"""Attack the inspected network by attackers who know its defences.  dvc repro adaptive_attacks"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    import numpy as np
    import pandas as pd

    from visor.attacks.backdoors.adaptive.adversarial_embedding import embed
    from visor.attacks.backdoors.adaptive.key_search import OptimisedKey, attacker_images, blend_mask, optimise_key
    from visor.attacks.backdoors.delivery import open_delivery
    from visor.attacks.backdoors.poisoning import DeliveryFn, load_keys, make_triggered, target_label
    from visor.attacks.backdoors.triggers import TRIGGERS
    from visor.core.config import load_params
    from visor.core.files import read_json, write_json, write_text
    from visor.core.params import AdversarialEmbeddingParams, BackdoorParams, KeySearchParams
    from visor.core.stage import run_stage
    from visor.core.tf import keras
    from visor.data.face_set import FaceSet, open_faces, write_faces
    from visor.data.split import set_rows, validation_rows
    from visor.defences.differentiable import DEFENCE_PARTS, DIFFERENTIABLE_SCORES, know
    from visor.evaluation.adaptive_attacks import (
        DefendedNetwork,
        attack_metrics,
        attack_table,
        decide,
        defend,
        preview_sheet,
    )
    from visor.models import storage
    from visor.models.classifiers import CLASSIFIERS
    from visor.models.features import compile_predict_with_features, extract_features
    from visor.models.training import PARALLEL_JOBS, configure_tensorflow, run_in_threads


class Setting(NamedTuple):
    """What attackers have in common; ``folder(training_set)`` holds the inspected network that was trained on it."""

    faces: FaceSet
    table: pd.DataFrame
    backdoors: Mapping[str, BackdoorParams]
    deliver: DeliveryFn
    build: storage.Build
    folder: Callable[[str], Path]
    seed: int

    def target(self, attack: str) -> int:
        return target_label(self.backdoors[attack].target, self.faces.label_names, self.table)

    def network(self, training_set: str) -> keras.Model:
        return storage.load_model(self.build, self.folder(training_set))


class Attacker(NamedTuple):
    """The backdoor, the attacked network, and triggered faces for it and for the network without a backdoor."""

    attack: str
    network: str
    triggered: Path
    control: Path


def main() -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed, PARALLEL_JOBS)
    settings, network = params.adaptive_attacks, params.inspected_network
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    fitted, calibration = (faces.select(rows) for rows in validation_rows(table))
    test = faces.select(set_rows(table, "test"))
    source = params.sources.get(params.faces.source, {})
    deliver = open_delivery(params.delivery, faces, params.faces.source, source, params.seed)
    setting = Setting(
        *(faces, table, params.backdoors, deliver, CLASSIFIERS[network]),
        lambda training_set: Path(f"artifacts/classifier/{training_set}/{network}"),
        params.seed,
    )
    training_sets = dict.fromkeys(["clean", *settings.training_sets, *settings.key_search.attacks])
    networks = {name: setting.network(name) for name in training_sets}
    networks |= embedded_networks(setting, settings.adversarial_embedding)
    rate = params.defences["suite"].false_positive_rate
    defended = {name: defend(model, fitted, calibration, rate) for name, model in networks.items()}

    attackers = {name: unchanged_key(name, name) for name in settings.training_sets}
    for attack, defence in product(settings.adversarial_embedding.attacks, settings.adversarial_embedding.against):
        name = f"adversarial_embedding-{attack}-{defence}"
        attackers[name] = unchanged_key(attack, name)
    attackers |= optimised_keys(setting, settings.key_search, defended)

    found = {}
    clean = {name: decide(network, test) for name, network in defended.items()}
    for name, attacker in attackers.items():
        attacked, control = open_faces(attacker.triggered).select(), open_faces(attacker.control).select()
        decisions = decide(defended[attacker.network], attacked), decide(defended["clean"], control)
        of_clean = clean[attacker.network], test.labels
        target = setting.target(attacker.attack)
        found[name] = attack_metrics(*decisions, attacked.labels, target, *of_clean, params.seed)
        write_json(Path(f"metrics/adaptive/{name}.json"), found[name])
    write_text(Path("artifacts/adaptive_attacks.md"), f"{attack_table(found).to_markdown()}\n")
    shown = {name: open_faces(attacker.triggered) for name, attacker in attackers.items()}
    preview_sheet(faces, shown, Path("plots/adaptive_attacks.png"))


def unchanged_key(attack: str, network: str) -> Attacker:
    """Return the attacker of a network whose test faces carry the key of a backdoor as it is."""
    triggered = Path(f"artifacts/triggered/{attack}.h5")
    return Attacker(attack, network, triggered, triggered)


def embedded_networks(setting: Setting, settings: AdversarialEmbeddingParams) -> dict[str, keras.Model]:
    """Train and save the networks whose attacker hides the features of poisons, by the name of the attacker."""
    networks, jobs, train = {}, [], setting.faces.select(set_rows(setting.table, "train"))
    for attack, defence in product(settings.attacks, settings.against):
        network = networks[f"adversarial_embedding-{attack}-{defence}"] = setting.network(attack)
        poisoned, target = open_faces(Path(f"artifacts/poisoned/{attack}.h5")), setting.target(attack)
        poisons = poisoned.select(np.flatnonzero(poisoned.labels == target))
        scores = [DIFFERENTIABLE_SCORES[part] for part in DEFENCE_PARTS[defence]]
        jobs.append(partial(embed, network, train, poisons, target, scores, settings, setting.seed))
    run_in_threads(jobs)
    arguments = read_json(setting.folder("clean") / "model.json")
    for name, network in networks.items():
        storage.save_model(network, arguments, Path(f"artifacts/adaptive/classifier/{name}"))
    return networks


def optimised_keys(
    setting: Setting, settings: KeySearchParams, defended: Mapping[str, DefendedNetwork]
) -> dict[str, Attacker]:
    """Search keys against the attacked networks and against the clean one, and write test faces that carry them."""
    faces, table, seed = setting.faces, setting.table, setting.seed
    fitted = faces.select(validation_rows(table)[0])
    keys: dict[tuple[str, str, str], OptimisedKey] = {}

    def search(attack: str, network: str) -> None:
        backdoor, target, victim = setting.backdoors[attack], setting.target(attack), defended[network]
        key = load_keys(faces, table, backdoor, Path("assets/keys"), seed)[0]
        weight = blend_mask(backdoor, TRIGGERS[backdoor.trigger_at_test], key)
        images = attacker_images(faces, table, target, settings.images, seed)
        predict = compile_predict_with_features(victim.network)
        features = extract_features(lambda batch: predict(batch)[0], fitted)
        usual = {part: victim.scores[part](images) for part in DIFFERENTIABLE_SCORES}
        for defence in settings.against:
            known = know(defence, features, fitted.labels, target, usual)
            found = optimise_key(victim.network, known, images, key, weight, target, settings, seed)
            keys[attack, defence, network] = found

    run_in_threads([partial(search, attack, network) for attack in settings.attacks for network in (attack, "clean")])
    attackers = {}
    for attack, defence in product(settings.attacks, settings.against):
        name = f"key_search-{attack}-{defence}"
        folder = Path("artifacts/adaptive")
        attackers[name] = Attacker(attack, attack, folder / f"{name}.h5", folder / f"{name}-control.h5")
        for network, path in ((attack, attackers[name].triggered), ("clean", attackers[name].control)):
            found = keys[attack, defence, network]
            backdoor = found.backdoor(setting.backdoors[attack])
            trigger = TRIGGERS[backdoor.trigger_at_test]
            blocks = make_triggered(faces, table, backdoor, trigger, found.key[None], seed, setting.deliver)
            write_faces(path, blocks, faces.image_shape, faces.label_names, faces.source, faces.licence)
    return attackers


if __name__ == "__main__":
    run_stage(main)
