"""Small trained parts on a frozen model: LoRA, IA3 and soft tokens, kept in PEFT's files.

- ``lora`` (Hu et al. 2021, arXiv:2106.09685) adds a product of two narrow matrices to every linear
  layer of attention, of what stands for it, and of the feed-forward parts: alpha / rank times it,
  or alpha / sqrt(rank) times it where it is rank-stabilised (Kalajdzievski 2023, arXiv:2312.03732).
- ``ia3`` (Liu et al. 2022, arXiv:2205.05638) multiplies keys, values and the inner activations of
  the feed-forward part by learnt numbers. Where one matrix makes queries too they are multiplied
  as well, which says nothing more: a query's factor could as well be its key's. In Hyena the gates
  and the value stand for them, in Mamba what its recurrence is made from. In GPN, whose
  convolutions mix the letters, it is the activations that linear layers read or, where there is
  one such layer alone, what it gives.
- ``prompt`` (Lester et al. 2021, arXiv:2104.08691) puts learnt vectors before every sequence.

Convolutions and the networks that make Hyena's filters are left as they are: PEFT's layers for
convolutions want another order of axes, and the filters see positions, not sequence.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lexome.blocks import SoftTokens
from lexome.blocks.hyena import ImplicitFilter
from lexome.blocks.initialise import shapes_only
from lexome.core import CheckpointError, CheckpointMismatch, InputError, atomic_path, need, pick
from lexome.core.json_files import write_json
from lexome.model import Model

Adapter = Literal["lora", "ia3", "prompt"]
ADAPTERS: tuple[Adapter, ...] = ("lora", "ia3", "prompt")
ADAPTER, ADAPTER_SETTINGS = "adapter_model.safetensors", "adapter_config.json"  # PEFT's names

_PREFIX = "base_model.model."  # of the names in a file of PEFT
_SOFT = "prompt_embeddings"  # the one name of a file with soft tokens
_KINDS = {"LORA": "lora", "IA3": "ia3", "PROMPT_TUNING": "prompt"}  # PEFT's words -> ours

# What IA3 multiplies of a layer with such a name; None leaves it alone.
_SCALED: Mapping[str, Literal["inputs", "outputs"] | None] = {
    "qkv": "outputs",
    "out": None,
    "in_proj": "outputs",  # gates and value of Hyena, gate and input of Mamba
    "out_proj": None,
    "x_proj": "outputs",  # Mamba's keys and queries, and how long it steps
    "dt_proj": None,
    "join": None,  # of HELM's two directions
    "up": None,
    "down": "inputs",
    "mlp": "outputs",  # GPN's ConvNet: the only matrix of its branch
    "mix": "inputs",
    "narrow": "outputs",  # what the convolution of a ByteNet block reads
    "widen": "inputs",
}


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """Sizes of an adapter; each method takes its own and ignores the others.

    Attributes
    ----------
    rank, alpha, dropout
        LoRA: the update is alpha / rank times a product of two matrices of this rank; dropout acts
        on what goes into it. By default DNABERT-2's rank and dropout (its fine-tuning script), and
        the alpha that it takes for Nucleotide Transformer.
    rank_stabilised
        LoRA: take alpha / sqrt(rank) instead, which keeps the size of an update for all ranks.
    prompt_tokens
        How many soft tokens; 20 as Lester et al. found enough.
    seed
        Of what they start from. LoRA and IA3 change nothing at first; soft tokens start as words
        of the vocabulary.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05
    rank_stabilised: bool = False
    prompt_tokens: int = 20
    seed: int = 0


def adapter_targets(model: Model, method: str = "lora") -> list[str]:
    """Return the names, below the backbone, of the layers that an adapter goes around.

    Parameters
    ----------
    model
        The model, without adapters.
    method
        One of `ADAPTERS`; soft tokens go around no layer.

    Raises
    ------
    InputError
        If the model has linear layers that IA3 has no rule for.
    """
    pick("adapter", method, ADAPTERS)
    if method == "prompt":
        return []
    linear = _linear_layers(model)
    if method == "lora":
        return linear
    strange = [name for name in linear if _leaf(name) not in _SCALED]
    if strange:
        raise InputError(
            f"{model.family.title} has the layer {strange[0]}, and nothing says what of it IA3 "
            "multiplies. Expected layers of attention, Hyena or feed-forward parts; take "
            "method='lora'."
        )
    return [name for name in linear if _SCALED[_leaf(name)]]


def _linear_layers(model: Model) -> list[str]:
    spared = {
        id(part)
        for module in model.backbone.modules()
        if isinstance(module, ImplicitFilter)
        for part in module.modules()
    }
    return [
        f"layers.{name}"
        for name, module in model.backbone.layers.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in spared
    ]


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def add_adapter(model: Model, method: str, settings: AdapterSettings | None = None) -> Model:
    """Put an adapter on a model and freeze the rest of its backbone.

    Soft tokens take places of the model's context, so add them before deciding how long sequences
    are cut.

    Parameters
    ----------
    model
        A model of sequences without an adapter; changed in place.
    method
        One of `ADAPTERS`.
    settings
        Sizes; the defaults if left out.

    Raises
    ------
    InputError
        If the model has an adapter already or reads no sequences, or sizes do not fit it.
    MissingExtra
        If PEFT is not installed.
    """
    settings = settings or AdapterSettings()
    peft = _peft()
    _check_bare(model)
    _check_sizes(model, pick("adapter", method, ADAPTERS), settings)
    targets = adapter_targets(model, method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if method == "prompt":
            _add_soft_tokens(
                model,
                peft.PromptTuningConfig(
                    num_virtual_tokens=settings.prompt_tokens,
                    token_dim=model.config.width,
                    num_transformer_submodules=1,
                    prompt_tuning_init="SAMPLE_VOCAB",
                ),
            )
        elif method == "lora":
            config = peft.LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                use_rslora=settings.rank_stabilised,
                target_modules=targets,
            )
            peft.inject_adapter_in_model(config, model.backbone)
        else:
            inputs = [name for name in targets if _SCALED[_leaf(name)] == "inputs"]
            config = peft.IA3Config(target_modules=targets, feedforward_modules=inputs)
            peft.inject_adapter_in_model(config, model.backbone)
    return model.to(model.device)


def _peft() -> Any:
    return need("peft", "train", "for adapters (LoRA, IA3, soft tokens)")


def _check_bare(model: Model) -> None:
    if model.family.inputs != "sequence":
        raise InputError(
            f"{model.family.title} reads {model.family.inputs}s, and adapters are for models of "
            "sequences. Choose one of those; `lexome models` lists them."
        )
    if (there := adapter_of(model)) is not None:
        raise InputError(
            f"{model.name} has an adapter already ({there}). Expected a model without one; merge "
            "it first, or load the model again."
        )


def _check_sizes(model: Model, method: str, settings: AdapterSettings) -> None:
    for name in ("rank", "prompt_tokens"):
        value = getattr(settings, name)
        if type(value) is not int or value < 1:
            raise InputError(f"{name} is {value!r}. Expected a whole number of at least 1.")
    if method == "prompt" and model.context is not None:
        room = model.context - settings.prompt_tokens
        if room < model.context / 2:
            raise InputError(
                f"prompt_tokens is {settings.prompt_tokens:,}, but {model.name} takes "
                f"{model.context:,} tokens in all. Expected at most half of them; give fewer."
            )


def _add_soft_tokens(model: Model, config: Any) -> None:
    """Put soft tokens before what the backbone reads; PEFT holds them."""
    backbone = model.backbone
    backbone.requires_grad_(False)
    with torch.no_grad():
        ids_1V = torch.arange(model.config.vocab_size, device=model.device)[None]
        words_VD = backbone.token_vectors(ids_1V)[0].float()
    words = nn.Embedding.from_pretrained(words_VD)
    config.peft_type = "PROMPT_TUNING"
    vectors = _peft().PromptEmbedding(config, words)
    vectors.peft_config = {"default": config}
    backbone.prompt = SoftTokens(vectors, config.num_virtual_tokens)


def adapter_of(model: Model) -> str | None:
    """Say which adapter a model has: one of `ADAPTERS`, or None."""
    if model.backbone.prompt is not None:
        return "prompt"
    settings = getattr(model.backbone, "peft_config", None)
    return _KINDS[str(_word(settings["default"].peft_type))] if settings else None


def _word(value: Any) -> Any:
    return getattr(value, "value", value)


# --------------------------------------------------------------------------- files


def save_adapter(model: Model, folder: str | Path, source: str | Path | None = None) -> Path:
    """Write a model's adapter in PEFT's form.

    Parameters
    ----------
    model
        With an adapter.
    folder
        Gets ``adapter_config.json`` and ``adapter_model.safetensors``. The latter says in its
        header which weights the adapter was trained on.
    source
        Release or folder of those weights; by default where they were loaded from.

    Raises
    ------
    InputError
        If the model has no adapter.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors, config = _state(model), _config_of(model)
    if adapter_of(model) != "prompt":
        tensors = {_PREFIX + name: value for name, value in tensors.items()}
    origin = model.origin
    base = {"family": model.family.name, "base_sha256": model.checkpoint_sha256() or ""}
    with atomic_path(folder / ADAPTER) as temporary:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            temporary,
            metadata={"format": "pt", **base},
        )
    settings = {name: _plain(value) for name, value in config.to_dict().items()}
    settings["base_model_name_or_path"] = str(source or (origin.folder if origin else "")) or None
    settings["inference_mode"] = True
    write_json(folder / ADAPTER_SETTINGS, settings)
    return folder


def read_adapter(model: Model, folder: str | Path) -> Model:
    """Put the adapter of a folder on a model, for use and not for training.

    Parameters
    ----------
    model
        What the adapter was trained on; changed in place.
    folder
        What :func:`save_adapter` or PEFT wrote.

    Raises
    ------
    CheckpointError
        If the folder holds no adapter, or one of a kind that is not known here.
    CheckpointMismatch
        If it was trained on other weights. Files of PEFT itself do not say on which; then only
        names and shapes are compared.
    """
    folder = Path(folder)
    peft = _peft()
    config = _read_config(peft, folder)
    _check_bare(model)
    with safe_open(folder / ADAPTER, framework="pt") as file:
        stated = file.metadata() or {}
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    _check_base(model, folder, stated)
    if _word(config.peft_type) == "PROMPT_TUNING":
        tensor = tensors.get(_SOFT)
        shape = (config.num_virtual_tokens, model.config.width)
        if set(tensors) != {_SOFT} or tensor is None or tuple(tensor.shape) != shape:
            found = {name: tuple(value.shape) for name, value in tensors.items()}
            raise _other(model, folder, f"it holds {found}, and {_SOFT} of {shape} is expected")
        _add_soft_tokens(model, config)
        with torch.no_grad():
            next(model.backbone.prompt.parameters()).copy_(tensor)  # type: ignore[union-attr]
    else:
        _inject(model, folder, config, tensors)
    model.backbone.requires_grad_(False)
    return model.to(model.device)


def _read_config(peft: Any, folder: Path) -> Any:
    missing = [name for name in (ADAPTER_SETTINGS, ADAPTER) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} holds no adapter (no {missing[0]}). Expected {ADAPTER_SETTINGS} and "
            f"{ADAPTER}, as `lexome finetune` with an adapter and PEFT write them."
        )
    try:
        kind = json.loads((folder / ADAPTER_SETTINGS).read_text(encoding="utf-8")).get("peft_type")
    except ValueError as error:
        raise CheckpointError(
            f"{folder / ADAPTER_SETTINGS} is no JSON: {error}. Get it again."
        ) from error
    if kind not in _KINDS:
        raise CheckpointError(
            f"{folder / ADAPTER_SETTINGS} describes an adapter of the kind {kind!r}. Expected one "
            f"of {', '.join(_KINDS)}."
        )
    config = peft.PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    return config


def _check_base(model: Model, folder: Path, stated: Mapping[str, str]) -> None:
    family, digest = stated.get("family"), stated.get("base_sha256")
    if family and family != model.family.name:
        raise _other(model, folder, f"it is of the family {family}, not {model.family.name}")
    if digest and digest != model.checkpoint_sha256():
        found = model.checkpoint_sha256()
        raise _other(model, folder, f"its base has the SHA-256 {digest}, this model has {found}")


def _other(model: Model, folder: Path, why: str) -> CheckpointMismatch:
    return CheckpointMismatch(
        f"the adapter in {folder} was not trained on {model.name}: {why}. Give the very model that "
        f"it was trained on; {ADAPTER_SETTINGS} may name it under base_model_name_or_path."
    )


def _inject(model: Model, folder: Path, config: Any, tensors: Mapping[str, Tensor]) -> None:
    """Put LoRA or IA3 around layers, with these weights; nothing is changed if they do not fit."""
    peft = _peft()
    shapes = {name.removeprefix(_PREFIX): tuple(value.shape) for name, value in tensors.items()}
    with shapes_only():
        twin = Model(model.family, model.config, head=None)
    try:
        peft.inject_adapter_in_model(config, twin.backbone)
    except ValueError as error:  # PEFT finds none of the layers
        raise _other(model, folder, str(error)) from error
    wanted = {name: tuple(value.shape) for name, value in _state(twin).items()}
    wrong = sorted(set(wanted.items()) ^ set(shapes.items()))
    if wrong:
        name = wrong[0][0]
        raise _other(
            model,
            folder,
            f"{len({n for n, _ in wrong})} tensors differ, first {name}: the file has "
            f"{shapes.get(name, 'none')}, the model {wanted.get(name, 'none')}",
        )
    peft.inject_adapter_in_model(config, model.backbone)
    plain = {name.removeprefix(_PREFIX): value for name, value in tensors.items()}
    peft.set_peft_model_state_dict(model.backbone, plain)


def _config_of(model: Model) -> Any:
    if model.backbone.prompt is not None:
        return model.backbone.prompt.vectors.peft_config["default"]  # type: ignore[index]
    settings = getattr(model.backbone, "peft_config", None)
    if not settings:
        raise InputError(f"{model.name} has no adapter. Put one on it with add_adapter.")
    return settings["default"]


def _state(model: Model) -> dict[str, Tensor]:
    """Return the tensors of an adapter, as PEFT names them below its wrapper."""
    _config_of(model)
    if model.backbone.prompt is not None:
        return {_SOFT: next(model.backbone.prompt.parameters())}
    return _peft().get_peft_model_state_dict(model.backbone, save_embedding_layers=False)


def _plain(value: Any) -> Any:
    """Return what JSON can hold: sets as sorted lists, enums as their text."""
    return sorted(value) if isinstance(value, set) else _word(value)


# --------------------------------------------------------------------------- merging


def merge_adapter(model: Model) -> Model:
    """Fold LoRA or IA3 into the weights, so that the model is one without an adapter again.

    Results are those of model and adapter but for rounding, and `Model.save` then writes the
    official layout.

    Parameters
    ----------
    model
        With an adapter; changed in place. Afterwards the parameters that its authors train are
        trainable again.

    Raises
    ------
    InputError
        If there is no adapter, or it is soft tokens, which are no part of the official layout.
    """
    kind = adapter_of(model)
    if kind == "prompt":
        raise InputError(
            f"the adapter of {model.name} is {len(model.backbone.prompt or ())} soft tokens, which "
            "cannot be folded into weights: they are input. Keep them beside the model."
        )
    if kind is None:
        raise InputError(f"{model.name} has no adapter to merge. Load one with it first.")
    backbone: Any = model.backbone
    layers = {name: m for name, m in backbone.named_modules() if hasattr(m, "get_base_layer")}
    for name, layer in layers.items():
        layer.merge()
        parent, _, leaf = name.rpartition(".")
        setattr(backbone.get_submodule(parent), leaf, layer.get_base_layer())
    del backbone.peft_config
    with shapes_only():
        fresh = Model(model.family, model.config, head=None)
    trained = {name: p.requires_grad for name, p in fresh.backbone.named_parameters()}
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(trained[name])
    return model
