import itertools

import numpy as np
import pytest
import torch

from lexome.blocks import large_layers, packed_bytes
from lexome.catalog import new
from lexome.inference import decoding
from lexome.inference.generation import generate

SMALL = {"width": 16, "mlp_width": 32, "depth": 2}
HELM = {**SMALL, "objective": "causal", "hierarchical": False, "tokens": "nuc", "vocab_size": 10}
MODELS = {
    "hyenadna": ("hyenadna", {**SMALL, "length": 400}),
    "evo": ("evo", {**SMALL, "depth": 3, "heads": 4, "attention_layers": (1,)}),
    "evo without attention": ("evo", {**SMALL, "heads": 2, "attention_layers": ()}),
    "mamba": ("mamba", {"width": 16, "depth": 2}),
    "mamba 2": ("mamba", {"width": 16, "depth": 2, "generation": 2, "head_width": 8, "groups": 2}),
    "transformer++": ("transformer_plus", {**SMALL, "heads": 2, "positions": 400}),
    "helm transformer": ("helm", {**HELM, "heads": 2}),
    "helm transformer with positions": ("helm", {**HELM, "heads": 2, "positions": 400}),
    "helm hyena": ("helm", {**HELM, "mixer": "hyena", "length": 400}),
    "helm mamba": ("helm", {**HELM, "mixer": "mamba", "positions": 400}),
}
OPTIONS = {
    "letters": {"letters": "ACGT"},
    "two letters": {"letters": "AC"},
    "one letter": {"letters": "A"},
    "all tokens": {},
    "shortest": {"letters": "ACGT", "length": 1},
    "likeliest": {"letters": "ACGT", "temperature": 0},
    "restrained": {"letters": "ACGT", "no_repeat": 4, "repetition_penalty": 1.3, "top_k": 3},
    "stop": {"letters": "ACGT", "stop": ["GAT", "CCC"], "min_length": 20, "top_p": 0.9},
    "later seed": {"letters": "ACGT", "seed": 5, "temperature": 0.7},
}
PROMPTS = [("short", "GC"), ("long", "ATGGCATTCACGATG" * 3), ("none", ""), ("other", "ATGC")]


@pytest.fixture(autouse=True)
def pretend_they_are_large(monkeypatch):
    monkeypatch.setattr(decoding, "large_layers", lambda model: [model])


def make(name):
    torch.manual_seed(0)
    family, sizes = MODELS[name]
    model = new(family, **sizes).eval()
    with torch.no_grad():  # tokens are to differ in likelihood
        model.head.decoder.weight.mul_(20)
    return model


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return make(request.param)


@pytest.fixture
def one_by_one(monkeypatch):
    """Generate without trying anything ahead."""

    def run(*args, **options):
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "_likely", lambda tokenizer, allowed: [])
            return generate(*args, **options)

    return run


@pytest.fixture
def passes(monkeypatch):
    """Columns of all passes through a backbone, as they come."""
    read = []
    forward = torch.nn.Module.__call__

    def spy(self, *args, **inputs):
        if hasattr(self, "undecayed"):
            read.append(inputs["input_ids"].shape[1])
        return forward(self, *args, **inputs)

    monkeypatch.setattr(torch.nn.Module, "__call__", spy)
    return read


def assert_same(made, expected):
    assert [one.sequence for one in made] == [one.sequence for one in expected]
    assert [one.ended for one in made] == [one.ended for one in expected]
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=2e-4)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_trying_ahead_changes_nothing(model, options, one_by_one, passes, monkeypatch):
    monkeypatch.setattr(decoding, "_free_rows", lambda model: 12)
    options = {"length": 70, **options}
    expected = one_by_one(model, PROMPTS, **options)
    plain = len(passes)
    assert_same(generate(model, PROMPTS, **options), expected)
    if options["length"] > 1 and "letters" in options:
        assert len(passes) - plain < 0.6 * plain


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_one_pass_serves_two_letters(count, passes):
    generate(make("evo"), ["ACGT"], length=count, letters="ACGT")
    # The prompt's pass gives one letter, each other two; the last has no need of more.
    pairs, left = divmod(count - 1, 2)
    assert passes == [4] + [5] * pairs + [1] * left


def test_many_rows_go_one_by_one(passes):
    generate(make("evo"), ["ACGT"], length=6, samples=5, letters="ACGT")
    assert passes == [4, 1, 1, 1, 1, 1]
    passes.clear()
    generate(make("evo"), ["ACGT"], length=6, samples=4, letters="ACGT")
    assert passes == [4, 5, 5, 1]


def test_small_models_go_letter_by_letter(passes, monkeypatch):
    monkeypatch.setattr(decoding, "large_layers", large_layers)
    generate(make("evo"), ["ACGT"], length=5, letters="ACGT")
    assert passes == [4, 1, 1, 1, 1]


@pytest.mark.parametrize(("name", "rows", "tried"), [("mamba", 1, True), ("mamba", 2, False)])
def test_few_choices_have_states_of_their_own(name, rows, tried, passes):
    generate(make(name), ["ACGT"], length=5, samples=rows, letters="ACGT")
    assert passes == ([4, 5, 5] if tried else [4, 1, 1, 1, 1])


def test_choices_with_large_states_are_not_tried(passes):
    generate(make("mamba 2"), ["ACGT"], length=5, letters="ACGT")
    assert passes == [4, 1, 1, 1, 1]


def test_a_token_that_was_not_tried_costs_nothing_but_its_pass(one_by_one, passes):
    # Evo reads 52 letters as its own and draws all of them while it has learnt nothing.
    model = make("evo")
    expected = one_by_one(model, PROMPTS, length=60)
    passes.clear()
    assert_same(generate(model, PROMPTS, length=60), expected)
    assert 5 in passes
    assert passes[-30:] == [1] * 30  # it has given up


def test_what_is_drawn_mostly_from_the_four_letters_goes_two_by_two(one_by_one, passes):
    model = make("evo")
    letters = [model.tokenizer.vocabulary.index(letter) for letter in "ACGT"]
    with torch.no_grad():
        model.head.decoder.weight *= 0.1
        lift = torch.zeros_like(model.head.decoder.weight)
    forward = model.head.forward

    def favour(x, batch):
        scores = forward(x, batch) + lift[:, 0]
        scores[..., letters] += 5.5
        return scores

    model.head.forward = favour
    expected = one_by_one(model, ["ACGT"], length=200)
    strangers = set(expected[0].sequence) - set("ACGT")
    assert strangers
    passes.clear()
    assert_same(generate(model, ["ACGT"], length=200), expected)
    assert passes.count(5) > 80


def test_memory_for_choices_does_not_grow():
    model = make("transformer++")
    sizes = []
    for length in (20, 300):
        decoder = decoding.Decoder(
            model, {"input_ids": torch.tensor([[7, 8, 9]])}, length, [7, 8, 9, 10]
        )
        with torch.no_grad():
            decoder.start()
            for id in itertools.islice(itertools.cycle([7, 8, 9, 10]), length - 1):
                decoder.follow(torch.tensor([id]))
        cache = decoder._cache
        held = sum(x.numel() for slot in cache._slots.values() for x in slot.values())
        sizes.append(held / (cache.capacity + cache.choices))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("length", "room", "held"), [(70, 1 << 30, 1), (70, 1, 0), (9, 1 << 30, 0)]
)
def test_weights_lie_ready_for_many_steps_if_there_is_room(monkeypatch, length, room, held):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    torch.manual_seed(0)
    model = new("hyenadna", width=256, mlp_width=16, depth=1, length=400).eval()
    if not packed_bytes(model):
        pytest.skip("nothing is multiplied by oneDNN here")
    monkeypatch.setattr(decoding, "free_bytes", lambda: room)
    with decoding.prepared(model, length):
        assert (model.backbone.layers[0].mixer.out_proj.packed is not None) == held
    assert model.backbone.layers[0].mixer.out_proj.packed is None


def test_packed_weights_write_the_same(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    torch.manual_seed(0)
    model = new("hyenadna", width=256, mlp_width=512, depth=2, length=400).eval()
    options = {"length": 100, "letters": "ACGT", "samples": 3}
    made = generate(model, ["ACGT"], **options)
    monkeypatch.setattr(decoding, "free_bytes", lambda: 0)
    assert_same(made, generate(model, ["ACGT"], **options))
