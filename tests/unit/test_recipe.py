# SPDX-License-Identifier: Apache-2.0
"""Recipes: the empty one is whole, every default is stated, every wrong key is named."""

from pathlib import Path

import pytest

from edgeprune.errors import ConfigError
from edgeprune.recipe import NUMERICS, Recipe, load_recipe

FULL = """
schema_version = 1
seed = 7

[prune]
ratio = 0.5
importance = "bn-scale"
scope = "global"
multiple = 16
samples = 64
exclude = ["head.*"]

[finetune]
epochs = 0
optimizer = "adamw"
learning_rate = 1e-3
patience = 2
distill = 1

[quantize]
numerics = "int8-dynamic"

[export]
formats = ["tflite"]
batch = "dynamic"

[profile]
blocks = 2
time_limit = 10
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_the_empty_file_is_a_recipe(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, "")) == Recipe()


def test_every_key_is_read(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, FULL))
    assert recipe.seed == 7
    assert recipe.prune.exclude == ("head.*",)
    assert recipe.finetune.distill == 1.0
    assert recipe.quantize.numerics == "int8-dynamic"
    assert recipe.export.formats == ("tflite",)
    assert recipe.export.batch == "dynamic"
    assert recipe.profile.time_limit == 10.0


def test_a_recipe_survives_being_written_as_json() -> None:
    recipe = Recipe(seed=3)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize("numerics", [*NUMERICS, "auto"])
def test_all_numerics_are_accepted(tmp_path: Path, numerics: str) -> None:
    text = f'[quantize]\nnumerics = "{numerics}"'
    assert load_recipe(written(tmp_path, text)).quantize.numerics == numerics


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed = 1", "unknown key 'sed'; did you mean 'seed'?; allowed: export, finetune, profile,"),
        ("[prune]\nratoi = 0.5", "unknown key 'prune.ratoi'; did you mean 'ratio'?; allowed:"),
        ("[prune]\nratio = 1.0", "key 'prune.ratio' should be less than 1, got 1.0"),
        ("[prune]\nratio = -0.1", "key 'prune.ratio' should be greater than or equal to 0"),
        ("[prune]\nratio = nan", "key 'prune.ratio' should be a finite number, got NaN"),
        ('[prune]\nratio = "0.5"', "key 'prune.ratio' should be a valid number, got \"0.5\""),
        (
            '[prune]\nimportance = "tailor"',
            "key 'prune.importance' should be 'l1', 'l2', 'taylor', 'taylor-abs', 'fisher', 'obs', "
            "'wanda', 'apoz', 'bn-scale', 'fpgm', 'lamp' or 'random', or be 'auto', "
            "got \"tailor\"; did you mean 'taylor'?",
        ),
        (
            '[prune]\nexclude = "head"',
            "key 'prune.exclude' should be a valid array, got \"head\"",
        ),
        (
            "[export]\nbatch = 0",
            "key 'export.batch' should be 'dynamic', or be greater than or equal to 1, got 0",
        ),
        ("[export]\nformats = []", "key 'export.formats' should have at least 1 item, got []"),
        (
            '[export]\nformats = ["onnx", "tflit"]',
            "key 'export.formats.1' should be 'onnx' or 'tflite', got \"tflit\"; "
            "did you mean 'tflite'?",
        ),
        ("prune = 0.5", "key 'prune' should be a table, [prune], got 0.5"),
        ("seed = true", "key 'seed' should be a valid integer, got true"),
        (
            "seed = -1\n[prune]\nratio = 2.0",
            "key 'seed' should be greater than or equal to 0, got -1",
        ),
        ("schema_version = 9", "schema_version is 9; this edgeprune reads 1"),
        ("[finetune]\nlearning_rate = 0", "key 'finetune.learning_rate' should be greater than 0"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_the_number_of_further_wrong_keys_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"got -1 \(and 1 more wrong key\)$"):
        load_recipe(written(tmp_path, "seed = -1\n[prune]\nratio = 2.0"))
    with pytest.raises(ConfigError, match=r"\(and 2 more wrong keys\)$"):
        load_recipe(written(tmp_path, "seed = -1\nx = 1\n[prune]\nratio = 2.0"))


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().seed = 1  # type: ignore[misc]
