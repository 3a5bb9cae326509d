from __future__ import annotations

import pytest
import torch
from golden_files import KEY_LISTS, GoldenFolders, describe_state, read_entries, read_json

from mvcseg.models.dvis import PRESETS, build_dvis, official_state_dict
from mvcseg.models.dvis.names import count_parameters, expected_entries, from_official, normalised, to_official


def test_every_preset_has_a_key_list() -> None:
    assert set(KEY_LISTS) == set(PRESETS)


@pytest.mark.golden
@pytest.mark.parametrize("preset", KEY_LISTS)
def test_the_official_state_dict_has_exactly_the_files_names_shapes_and_types(
    preset: str, golden: GoldenFolders
) -> None:
    with torch.device("meta"):
        model = build_dvis(preset)
        official = official_state_dict(model)
    listed = read_entries(golden / f"keys/{KEY_LISTS[preset]}.json")
    got = {name: [list(value.shape), str(value.dtype).removeprefix("torch.")] for name, value in official.items()}
    assert got == {name: [entry["shape"], entry["dtype"]] for name, entry in listed.items()}
    kinds = {to_official(name, backbone=model.backbone): entry["kind"] for name, entry in describe_state(model).items()}
    assert kinds == {name: entry["kind"] for name, entry in listed.items() if name != "criterion.empty_weight"}


@pytest.mark.golden
@pytest.mark.parametrize("preset", KEY_LISTS)
def test_a_file_must_hold_exactly_what_is_listed_but_for_the_loss_weights(preset: str, golden: GoldenFolders) -> None:
    listed = read_entries(golden / f"keys/{KEY_LISTS[preset]}.json")
    del listed["criterion.empty_weight"]
    assert expected_entries(PRESETS[preset]) == {
        name: (tuple(entry["shape"]), getattr(torch, entry["dtype"])) for name, entry in listed.items()
    }


@pytest.mark.golden
@pytest.mark.parametrize("preset", KEY_LISTS)
def test_parameters_number_those_of_the_public_model(preset: str, golden: GoldenFolders) -> None:
    assert count_parameters(PRESETS[preset]) == read_json(golden / f"keys/{KEY_LISTS[preset]}.json")["num_parameters"]


@pytest.mark.golden
@pytest.mark.parametrize("preset", KEY_LISTS)
def test_renaming_is_a_bijection(preset: str, golden: GoldenFolders) -> None:
    with torch.device("meta"):
        model = build_dvis(preset)
    official = set(read_entries(golden / f"keys/{KEY_LISTS[preset]}.json")) - {"criterion.empty_weight"}
    own = {from_official(name, backbone=model.backbone) for name in official}
    assert own == set(model.state_dict())
    assert len(own) == len(official)
    assert {to_official(name, backbone=model.backbone) for name in own} == official


def test_old_names_and_the_loss_are_normalised() -> None:
    one = torch.ones(1)
    state = {
        "sem_seg_head.predictor.static_query.weight": one,
        "criterion.empty_weight": one,
        "backbone.res2.0.conv1.weight": one,
    }
    assert list(normalised(state)) == ["sem_seg_head.predictor.query_feat.weight", "backbone.res2.0.conv1.weight"]
