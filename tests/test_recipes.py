"""Each recipe that ships is what its command accepts, and runs."""

import inspect
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import lexome
from lexome.blocks.initialise import shapes_only
from lexome.catalog import new, releases
from lexome.cli.arguments import bind
from lexome.cli.main import COMMANDS
from lexome.core.arguments import read_arguments
from lexome.formats.fasta import write_fasta
from lexome.formats.records import SequenceRecord

RECIPES = sorted(Path(lexome.__file__).parent.glob("training/recipes/*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_binds_to_the_function_it_names(recipe: Path):
    first = recipe.read_text(encoding="utf-8").partition("\n")[0]
    named = re.fullmatch(r"# lexome ([\w-]+)", first)
    assert named, f"the first line is {first!r}; expected e.g. '# lexome pretrain'"
    assert named[1] in COMMANDS
    module, _, attribute = COMMANDS[named[1]][0].partition(":")
    function = getattr(import_module(module), attribute)
    values = read_arguments(recipe, inspect.signature(function).parameters)
    left_to_the_user = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty and name not in values
    ]
    tokens = [f"--{name.replace('_', '-')}=given" for name in left_to_the_user]
    assert bind(function, ["--config", str(recipe), *tokens], "lexome") is not None


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_where_its_numbers_come_from(recipe: Path):
    text = recipe.read_text(encoding="utf-8")
    assert re.search(r"# .*(arXiv|doi|\d{4}\.\d{5}|et al\.|ours)", text), "cite the paper, or ours"


def sizes_of(recipe: str) -> dict:
    path = next(path for path in RECIPES if path.stem == recipe)
    return read_arguments(path, inspect.signature(lexome.pretrain).parameters)["sizes"]


RELEASES = {
    "hyenadna-tiny-1k": "hyenadna-tiny-1k-seqlen",
    "hyenadna-tiny-1k-d256": "hyenadna-tiny-1k-seqlen-d256",
    "hyenadna-tiny-16k": "hyenadna-tiny-16k-seqlen-d128",
    "hyenadna-small-32k": "hyenadna-small-32k-seqlen",
    "hyenadna-medium-160k": "hyenadna-medium-160k-seqlen",
    "hyenadna-medium-450k": "hyenadna-medium-450k-seqlen",
    "hyenadna-large-1m": "hyenadna-large-1m-seqlen",
    "evo-1-8k": "evo-1-8k-base",
}


@pytest.mark.parametrize("recipe", RELEASES)
def test_a_recipe_of_a_release_makes_a_model_of_its_size(recipe: str):
    family, release = releases()[RELEASES[recipe]]
    with shapes_only():
        model = new(family.name, **sizes_of(recipe))
    assert model.count_parameters() == release.parameters
    assert model.context in {release.context, None}


HELM_MILLIONS = {  # the authors' configurations, counted
    "helm-transformer-masked": 49.3,
    "helm-transformer-causal": 49.3,
    "helm-hyena-masked": 50.2,
    "helm-hyena-causal": 50.2,
    "helm-mamba-masked": 51.8,
    "helm-mamba-causal": 49.1,
}


@pytest.mark.parametrize("recipe", HELM_MILLIONS)
def test_models_of_helm_have_their_fifty_million_parameters(recipe: str):
    with shapes_only():
        model = new("helm", **sizes_of(recipe))
    assert model.count_parameters() / 1e6 == pytest.approx(HELM_MILLIONS[recipe], abs=0.2)
    assert recipe == f"helm-{model.config.mixer}-{model.config.objective}"


def letters_of(names, length: int, begin: str = "") -> list[SequenceRecord]:
    """Return a sequence for each name, of codons among which some are frequent."""
    draws = np.random.default_rng(0)
    codons = np.array(["GCC", "AAA", "CTG", "ACG"])
    rows = draws.choice(codons, (len(names), length // 3), p=[0.4, 0.3, 0.2, 0.1])
    return [
        SequenceRecord(name, begin + "".join(row)) for name, row in zip(names, rows, strict=True)
    ]


SMALL = {  # the sizes of a small form; all else is the recipe's, but for how much is done
    "evo": {"width": 16, "depth": 2, "heads": 2, "attention_layers": "1", "mlp_width": 16},
    "hyenadna": {"width": 16, "depth": 1, "mlp_width": 16, "length": 98, "filter_width": 8},
    "helm": {"width": 16, "depth": 1, "mlp_width": 32},
    "mamba": {"width": 16, "depth": 1},
    "transformer-plus": {"width": 16, "depth": 1, "heads": 2, "mlp_width": 16, "positions": 96},
}
FAMILIES_OF_RECIPES = {
    path.stem: family
    for path in RECIPES
    for family in SMALL
    if path.stem.startswith(family) and path.stem != "evo-1-131k" and "long" not in path.stem
}


def small_form(recipe: str, folder: Path) -> dict:
    """Return arguments that turn a recipe into five steps with its own stages, made short."""
    path = next(path for path in RECIPES if path.stem == recipe)
    own = read_arguments(path, inspect.signature(lexome.pretrain).parameters)
    whole = own.get("whole_sequences", False)
    names = [f"g{i}" for i in range(12)] if whole else ["one", "two"]
    write_fasta(folder / "in.fa", letters_of(names, 60 if whole else 3000, "ATG" if whole else ""))
    made = {
        "recipe": recipe,
        "fasta": folder / "in.fa",
        "validation": names[-1],
        "steps": 5,
        "warmup_steps": min(1, own.get("warmup_steps", 0)),
        "batch_size": 4,
        "accumulate": min(2, own.get("accumulate", 1)),
        "save_every": 2,
        "log_every": 1,
        "workers": 0,
        "progress": False,
    }
    if "length_tokens" in own:
        made["length_tokens"] = 24
    else:
        made["length_bp"] = 96
    if stages := own.get("length_warmup"):
        made["length_warmup"] = [
            {"steps": 1, "length": 24 * (i + 1)} for i in range(min(3, len(stages)))
        ]
    return made


def stopped_and_gone_on(made: dict, out: Path):
    """Run until the third step, then again to the end."""

    def stop(measurement):
        if measurement.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lexome.pretrain(**made | {"progress": stop}, out=out)
    assert (out / "checkpoints").is_dir()
    return lexome.pretrain(**made, out=out)


@pytest.mark.parametrize("recipe", FAMILIES_OF_RECIPES)
def test_a_recipe_starts_goes_on_after_a_stop_and_ends_with_a_model(recipe: str, tmp_path):
    family = FAMILIES_OF_RECIPES[recipe]
    sizes = dict(SMALL[family])
    if recipe.startswith("helm-hyena"):
        sizes["length"] = 24
    made = small_form(recipe, tmp_path) | {"sizes": sizes}
    done = stopped_and_gone_on(made, tmp_path / "run")
    assert done.steps == 5
    steps = [h.step for h in done.history if h.loss is not None]
    assert steps == [1, 2, 3, 4, 5]
    assert done.validation_nats is not None
    model = lexome.load(done.model, device="cpu")
    assert model.family.name == family.replace("-", "_")
    assert model.config.width == 16


@pytest.mark.parametrize(
    ("first", "second", "stretch"),
    [("evo-1-8k", "evo-1-131k", 16), ("evo-small", "evo-small-long", 8)],
)
def test_evo_is_taken_to_longer_windows_in_a_second_stage(first, second, stretch, tmp_path):
    made = small_form(first, tmp_path) | {"sizes": SMALL["evo"]}
    short = lexome.pretrain(**made, out=tmp_path / "short")
    made = small_form(second, tmp_path) | {"model": short.model, "length_bp": 384}
    long = stopped_and_gone_on(made, tmp_path / "long")
    assert long.gain is not None
    assert lexome.load(short.model, device="cpu").config.stretch == 1
    assert lexome.load(long.model, device="cpu").config.stretch == stretch


@pytest.mark.parametrize("alpha", [0.2, 0.4, 0.6])
def test_each_alpha_that_helm_was_trained_with_can_be_chosen(alpha, tmp_path):
    made = small_form("helm-transformer-masked", tmp_path)
    done = lexome.pretrain(
        **made | {"sizes": SMALL["helm"] | {"alpha": alpha}, "steps": 1}, out=tmp_path / "run"
    )
    assert lexome.load(done.model, device="cpu").config.alpha == alpha
