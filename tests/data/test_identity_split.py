"""No person is both trained on and attacked."""

import numpy as np
import pandas as pd
import pytest

from tests.conftest import random_images
from visor.core.errors import UserError
from visor.data.face_set import FaceBatch, open_faces, write_faces
from visor.data.identity_split import divide_identities, split_identities, training_selections

LABELS = np.repeat(np.arange(3, 47, 2), np.arange(1, 23))  # 22 people with gaps, each with another number of rows


def test_each_person_is_of_one_kind():
    people = divide_identities(LABELS, 0.4, seed=1)
    assert [len(kind) for kind in people] == [13, 9]
    assert all(kind.dtype == np.int32 and (np.diff(kind) > 0).all() for kind in people)
    np.testing.assert_array_equal(np.sort(np.concatenate(people)), np.unique(LABELS))


def test_division_depends_on_the_seed_and_not_on_the_order_of_rows():
    rows = LABELS.copy()
    first, reversed_, reseeded = (
        divide_identities(labels, 0.4, seed) for labels, seed in ((rows, 1), (rows[::-1], 1), (rows, 2))
    )
    assert all(np.array_equal(*kinds) for kinds in zip(first, reversed_, strict=True))
    assert not any(np.array_equal(*kinds) for kinds in zip(first, reseeded, strict=True))
    np.testing.assert_array_equal(rows, LABELS)


def test_held_out_people_stay_so_when_more_are_held_out():
    few, many = divide_identities(LABELS, 0.2, 1), divide_identities(LABELS, 0.5, 1)
    assert set(few.held_out) < set(many.held_out)
    assert set(many.trained) < set(few.trained)


@pytest.mark.parametrize(("share", "held_out"), [(0.05, 1), (0.95, 21)])
def test_either_kind_needs_two_people(share, held_out):
    counts = f"{held_out} held-out and {22 - held_out} training people"
    with pytest.raises(UserError, match=rf"recognition_attack\.held_out_share is {share}: {counts}; each needs"):
        divide_identities(LABELS, share, 1)


def test_training_selections_are_labelled_by_position_among_the_trained(tmp_path):
    labels = np.repeat(np.arange(5, dtype=np.int32), 4)
    rows = np.arange(20, dtype=np.int32)
    names = ["a", "b", "c", "d", "e"]
    write_faces(
        tmp_path / "faces.h5",
        [FaceBatch(random_images(20, height=6, width=5), labels, rows, rows)],
        (6, 5, 3),
        names,
        "s",
        "l",
    )
    sets = np.array(["train", "train", "validation", "test"] * 4 + ["unused"] * 4)
    table = pd.DataFrame({"row": rows, "label": labels, "set": sets})
    people = split_identities(table, 0.5, seed=1)
    assert sorted(np.concatenate(people)) == [0, 1, 2, 3], "unused people are of no kind"
    train, validation = training_selections(open_faces(tmp_path / "faces.h5"), table, people.trained)
    assert train.rows.tolist() == [row for row in rows if sets[row] == "train" and labels[row] in people.trained]
    np.testing.assert_array_equal(people.trained[train.labels], labels[train.rows])
    assert validation.labels.tolist() == [0, 1]
