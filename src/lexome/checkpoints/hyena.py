"""Published names of Hyena's layers, which HyenaDNA and the ports of its code share."""


def hyena_keys(backbone: str, *, wrap: str = "") -> dict[str, str]:
    """Return {published name: ours} of a stack of Hyena and MLP layers with its table and norm.

    Parameters
    ----------
    backbone
        What the published names begin with, such as ``"hyena.backbone."``.
    wrap
        What stands between a part of a layer and its tensors: ``"layer."`` where training
        recomputed activations.

    Examples
    --------
    >>> hyena_keys("model.")["model.layers.{i}.mlp.fc1.{p}"]
    'layers.{i}.mlp.up.{p}'
    """
    theirs, ours = f"{backbone}layers.{{i}}", "layers.{i}"
    mixer = {
        "in_proj.{p}": "in_proj.{p}",
        "out_proj.{p}": "out_proj.{p}",
        "short_filter.{p}": "short.{p}",
        "filter_fn.bias": "filter.bias",
        "filter_fn.pos_emb.z": "filter.z",
        "filter_fn.pos_emb.t": "filter.t",
        "filter_fn.modulation.deltas": "filter.deltas",
        "filter_fn.implicit_filter.{j}.{p}": "filter.net.{j}.{p}",
        "filter_fn.implicit_filter.{j}.freq": "filter.net.{j}.freq",
    }
    return {
        f"{backbone}embeddings.word_embeddings.weight": "embed.weight",
        f"{theirs}.norm1.{{p}}": f"{ours}.norm1.{{p}}",
        f"{theirs}.norm2.{{p}}": f"{ours}.norm2.{{p}}",
        f"{theirs}.mlp.{wrap}fc1.{{p}}": f"{ours}.mlp.up.{{p}}",
        f"{theirs}.mlp.{wrap}fc2.{{p}}": f"{ours}.mlp.down.{{p}}",
        **{f"{theirs}.mixer.{wrap}{a}": f"{ours}.mixer.{b}" for a, b in mixer.items()},
        f"{backbone}ln_f.{{p}}": "norm.{p}",
    }
