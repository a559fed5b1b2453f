# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from edgeprune.data import find_spec, list_specs
from edgeprune.data.spec import largest_shift
from edgeprune.errors import ConfigError, DataError

HEAD = 'schema_version = 1\nname = "mine"\n'
IMAGES = '[source]\nkind = "images"\n'


def spec(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_the_shipped_specs_are_known() -> None:
    assert {"cifar10", "digits", "imagenet"} <= set(list_specs())


def test_cifar10_has_the_constants_of_its_models() -> None:
    found = find_spec("cifar10")
    assert found.preprocessing is not None
    assert found.preprocessing.mean == (0.485, 0.456, 0.406)
    assert found.preprocessing.std == (0.229, 0.224, 0.225)
    assert found.preprocessing.scale == pytest.approx(1 / 255)
    assert found.augment == "flip-shift"


def test_a_users_spec_hides_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "calibration").mkdir()
    (tmp_path / "calibration/digits.toml").write_text(HEAD + IMAGES)
    monkeypatch.chdir(tmp_path)
    assert find_spec("digits").name == "mine"


def test_a_path_is_relative_to_its_spec(tmp_path: Path) -> None:
    found = find_spec(spec(tmp_path, HEAD + IMAGES + 'path = "photos"\n'))
    assert found.source.path == tmp_path / "photos"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + IMAGES + 'pathh = "x"\n', "unknown key 'source.pathh'; did you mean 'path'?"),
        (HEAD + 'augment = "flip"\n' + IMAGES, "key 'augment'"),
        (HEAD + '[source]\nkind = "tar"\n', "key 'source.kind'"),
        (HEAD, "key 'source' is missing"),
        ('schema_version = 2\nname = "x"\n' + IMAGES, "schema_version is 2"),
        (HEAD + IMAGES + 'sha256 = "12"\n', "key 'source.sha256'"),
        (HEAD + IMAGES + 'labels = "y"\n', "no named inputs"),
        (HEAD + '[source]\nkind = "factory"\n', "'factory' and kind"),
        (HEAD + '[source]\nkind = "digits"\npath = "x"\n', "takes no path"),
        (HEAD + IMAGES + '[preprocessing]\nscale = "1/0"\n', "no number or fraction"),
        (HEAD + IMAGES + "[preprocessing]\nmean = [0.5]\n", "'mean' and 'std'"),
        (HEAD + IMAGES + "[preprocessing]\nmean = [0.5]\nstd = [0]\n", "preprocessing.std"),
        (HEAD + IMAGES + "[split]\nevaluation = 1.0\n", "key 'split.evaluation'"),
        (HEAD + IMAGES + "[counts]\ntrain = 0\n", "key 'counts.train'"),
    ],
)
def test_a_wrong_spec_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        find_spec(spec(tmp_path, text))
    assert message in str(error.value)
    assert "mine.toml" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'digits'"):
        find_spec("digit")


@pytest.mark.parametrize(
    ("side", "shift"), [(8, 1), (28, 3), (32, 4), (64, 4), (65, 5), (224, 14), (1, 0)]
)
def test_the_shift_is_four_pixels_for_small_images(side: int, shift: int) -> None:
    assert largest_shift(side) == shift
