"""Tables of attacks on recognisers and their transfer, against loops that count."""

import numpy as np
import pandas as pd
import pytest

from visor.core.errors import UserError
from visor.core.params import RecognitionAttackParams
from visor.evaluation.metrics import wilson_interval
from visor.evaluation.plots.recognition_transfer import recognition_transfer_map
from visor.evaluation.recognition.tables import (
    curves,
    rates_of,
    read_faces,
    recognition_table,
    success_rates,
    surrogate_metrics,
)
from visor.evaluation.recognition.transfer import ALL, matrix, transfer_gains, transfer_metrics, transfer_table

SETTINGS = RecognitionAttackParams(
    networks=["a", "b", "c"],
    white_box=["a", "b"],
    held_out_share=0.4,
    false_accept_rates=[0.01],
    pairs=10,
    images=5,
    batch=2,
    targets=["nearest"],
    methods={"pgd": {}, "better": {}},
    strengths=[{"eps": 2, "iterations": 4}, {"eps": 5, "iterations": 7}],
    relative_step=1.0,
    random_start=True,
    jpeg=[75],
    cropping_detectors=["none", "mtcnn"],
    margin=0.2,
    report_faces=2,
)
PLAN = [
    ("clean", "clean", "", 0, 0, 0),
    ("noise_5", "noise", "", 5, 0, 0),
    *[(f"{m}_{e}x{s}", "attack", m, e, s, 0) for m in ("pgd", "better") for e, s in ((2, 4), (5, 7))],
    ("jpeg75_pgd_5x7", "jpeg", "pgd", 5, 7, 75),
]
DISTANCES = {(goal, name): {"linf": 5, "l2": 1.0, "ssim": 0.9} for goal in ("", "dodge") for name, *_ in PLAN}


def lines(seed, rows=23):
    rng = np.random.default_rng(seed)
    found = []
    for name, kind, method, eps, steps, quality in PLAN:
        for recogniser, way in [(r, w) for w in ("none", "mtcnn") for r in "abc"]:
            if way == "mtcnn" and (eps == 2 or quality):
                continue
            frame = pd.DataFrame(
                {"goal": "dodge", "condition": name, "kind": kind, "method": method}, index=range(rows)
            )
            frame = frame.assign(eps=eps, iterations=steps, quality=quality, recogniser=recogniser, in_front=way)
            right = np.random.default_rng([ord(recogniser), rows]).random(rows) < 0.8  # the same under every condition
            share = 0.1 + 0.3 * (method == "pgd") + 0.6 * (method == "better")
            found.append(
                frame.assign(
                    row=np.arange(rows) * 3,
                    similarity=rng.random(rows),
                    found=rng.random(rows) < 0.9,
                    linf=eps,
                    ssim=rng.random(rows),
                    **{"right_0.01": right, "fooled_0.01": rng.random(rows) < share},
                )
            )
    return pd.concat(found, ignore_index=True)


FACES = {"a": lines(1), "b": lines(2)}


def test_success_is_counted_among_those_who_were_right():
    table = success_rates(FACES["a"])
    assert len(table) == 7 * 3 + 4 * 3
    line = table[(table["condition"] == "better_5x7") & (table["recogniser"] == "c") & (table["in_front"] == "mtcnn")]
    own = FACES["a"].query("condition == 'better_5x7' and recogniser == 'c' and in_front == 'mtcnn'")
    pairs = list(zip(own["right_0.01"], own["fooled_0.01"], strict=True))
    right, fooled = sum(r for r, _ in pairs), sum(r and f for r, f in pairs)
    assert (line["right_0.01"].item(), line["success_0.01"].item()) == (right, fooled / right)
    assert (line["success_0.01_low"].item(), line["success_0.01_high"].item()) == wilson_interval(fooled, right)
    assert line["found"].item() == own["found"].mean()
    assert (line["linf"].item(), line["ssim"].item()) == (5, own["ssim"].mean())


def test_without_right_faces_there_is_no_success_rate(tmp_path):
    faces = {
        name: frame.assign(**{"right_0.01": frame["right_0.01"] & (frame["recogniser"] != "a")})
        for name, frame in FACES.items()
    }
    found = surrogate_metrics(success_rates(faces["a"]), "a", DISTANCES)
    assert "success_0.01" not in found["dodge"]["pgd_2x4"]
    assert found["dodge"]["pgd_2x4"]["right_0.01"] == 0
    titles = {name: name for name, *_ in PLAN}
    assert "| pgd_2x4 | – | 0." in recognition_table(found, titles, "a", ["0.01"])
    table, gained = matrix(faces, SETTINGS), transfer_gains(faces, ["0.01"], 1)
    assert "success_0.01" not in transfer_metrics(table, gained)["dodge"]["a"]["pgd_5x7"]["a"]["none"]
    assert "| a, pgd_5x7 | – of 0 |" in transfer_table(table, gained, "0.01")
    assert gained.loc[gained["recogniser"] == "a", "gain"].tolist() == [0, 0]
    recognition_transfer_map(table, "0.01", tmp_path / "map.png")


def test_metrics_are_those_of_the_surrogate_itself():
    found = surrogate_metrics(success_rates(FACES["a"]), "a", DISTANCES)
    assert list(found) == ["dodge"]
    assert list(found["dodge"]) == [name for name, *_ in PLAN]
    own = FACES["a"].query("condition == 'pgd_2x4' and recogniser == 'a' and in_front == 'none'")
    assert found["dodge"]["pgd_2x4"]["similarity"] == own["similarity"].mean()
    assert found["dodge"]["noise_5"]["ssim"] == 0.9
    text = recognition_table(found, {name: name.upper() for name, *_ in PLAN}, "a", rates_of(FACES["a"]))
    assert "success, FAR 1 %" in text
    cells = next(line for line in text.splitlines() if line.startswith("| PGD_2X4")).split(" | ")
    assert cells[1].startswith(f"{found['dodge']['pgd_2x4']['success_0.01']:.1%} (")
    assert cells[-1] == "– |"  # no PSNR was given


def test_curves_are_noise_and_attacks_on_the_surrogate():
    table = success_rates(FACES["b"])
    found = curves(table, "b", ["0.01"])
    assert list(zip(found["method"], found["eps"], strict=True)) == [
        ("noise", 5),
        *[(method, eps) for method in ("pgd", "better") for eps in (2, 5)],
    ]
    line = table.query("condition == 'better_2x4' and recogniser == 'b' and in_front == 'none'")
    assert found["success"].tolist()[3] == line["success_0.01"].item()
    assert (found["low"] <= found["success"] + 1e-9).all()


def test_the_matrix_holds_the_last_strength_and_noise():
    table = matrix(FACES, SETTINGS)
    assert set(table["condition"]) == {"noise_5", "pgd_5x7", "better_5x7"}
    assert len(table) == 3 * 2 * 3 * 2


def counted_gain(eps, recognisers, rows):
    """Mean difference of successes, counted face by face; a row may occur twice."""
    differences = []
    for surrogate, frame in FACES.items():
        for recogniser in [each for each in recognisers if each != surrogate]:
            success = {}
            for method in ("pgd", "better"):
                own = frame[(frame["method"] == method) & (frame["eps"] == eps) & (frame["kind"] == "attack")]
                own = own[(own["recogniser"] == recogniser) & (own["in_front"] == "none")].set_index("row").loc[rows]
                success[method] = own.loc[own["right_0.01"], "fooled_0.01"].mean()
            differences.append(success["better"] - success["pgd"])
    return np.mean(differences)


def test_gains_are_paired_means_over_recognisers_without_gradient():
    found = transfer_gains(FACES, ["0.01"], seed=4)
    assert list(zip(found["eps"], found["recogniser"], strict=True)) == [
        (eps, name) for eps in (2, 5) for name in ("b", "c", "a", ALL)
    ]
    rows = np.arange(23) * 3
    for line in found.to_dict("records"):
        names = "abc" if line["recogniser"] == ALL else line["recogniser"]
        assert line["gain"] == pytest.approx(counted_gain(line["eps"], names, rows))
    rng = np.random.default_rng(0)
    resampled = [counted_gain(5, "abc", rng.choice(rows, len(rows))) for _ in range(60)]
    expected = np.quantile(resampled, [0.025, 0.975])
    np.testing.assert_allclose(found.iloc[-1][["low", "high"]].astype(float), expected, atol=0.06)
    assert found.equals(transfer_gains(FACES, ["0.01"], seed=4))
    assert not found.equals(transfer_gains(FACES, ["0.01"], seed=5))


def test_goals_are_never_averaged():
    """Impersonation that never transfers takes nothing from what dodging gains, and gains nothing by it."""
    never = {name: frame.assign(goal="impersonate_nearest", **{"fooled_0.01": False}) for name, frame in FACES.items()}
    both = {name: pd.concat([frame, never[name]], ignore_index=True) for name, frame in FACES.items()}
    found, alone = transfer_gains(both, ["0.01"], 4), transfer_gains(FACES, ["0.01"], 4)
    dodging = found[found["goal"] == "dodge"].reset_index(drop=True)
    pd.testing.assert_frame_equal(dodging, alone)
    assert (found.loc[found["goal"] == "impersonate_nearest", ["gain", "low", "high"]] == 0).all(axis=None)


def test_gains_tell_their_faces_and_what_is_left_of_the_image():
    line = transfer_gains(FACES, ["0.01"], 4).query("recogniser == 'c' and eps == 5").iloc[0]
    shown = pd.concat(FACES.values()).query(
        "recogniser == 'c' and in_front == 'none' and eps == 5 and kind == 'attack'"
    )
    first, other = (shown[shown["method"] == method] for method in ("pgd", "better"))
    assert line["faces"] == first["right_0.01"].sum()
    assert (line["ssim_first"], line["ssim"]) == pytest.approx((first["ssim"].mean(), other["ssim"].mean()))


def test_one_method_gains_nothing():
    alone = {name: frame[frame["method"] != "better"] for name, frame in FACES.items()}
    assert transfer_gains(alone, ["0.01"], 1).empty
    assert transfer_metrics(matrix(alone, SETTINGS), transfer_gains(alone, ["0.01"], 1))["gain"] == {}


def test_one_recogniser_has_no_transfer():
    (name, faces), *_ = FACES.items()
    alone = {name: faces[faces["recogniser"] == name]}
    assert transfer_gains(alone, ["0.01"], 1).empty
    assert "| gain of success |" in transfer_table(matrix(alone, SETTINGS), transfer_gains(alone, ["0.01"], 1), "0.01")


def test_transfer_metrics_are_nested():
    table, gained = matrix(FACES, SETTINGS), transfer_gains(FACES, ["0.01"], 1)
    found = transfer_metrics(table, gained)
    cell = found["dodge"]["b"]["better_5x7"]["c"]["mtcnn"]
    line = table.query("surrogate == 'b' and condition == 'better_5x7' and recogniser == 'c' and in_front == 'mtcnn'")
    assert cell["success_0.01"] == line["success_0.01"].item()
    assert all(isinstance(value, (int, float)) for value in cell.values())
    assert found["gain"]["dodge"]["better"]["2x4"][ALL]["gain_0.01"] == gained["gain"][3]
    text = transfer_table(table, gained, "0.01")
    assert "| dodge | a | b | c | mtcnn → a | mtcnn → b | mtcnn → c |" in text
    assert f"| dodge, better 2/255 | 1 % | all | {gained['gain'][3]:+.1%} (" in text


def test_the_map_is_drawn_with_the_same_bytes(tmp_path):
    table = matrix(FACES, SETTINGS)
    for name in ("one.png", "two.png"):
        recognition_transfer_map(table, "0.01", tmp_path / name)
    one, two = ((tmp_path / name).read_bytes() for name in ("one.png", "two.png"))
    assert one == two
    assert one[:4] == b"\x89PNG"


def test_rows_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "faces.csv"
    FACES["a"].to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_faces(path), FACES["a"], check_dtype=False)
    with pytest.raises(UserError, match="is missing; run `dvc repro`"):
        read_faces(tmp_path / "other.csv")
