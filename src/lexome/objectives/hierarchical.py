"""Hierarchical cross entropy: a wrong token costs less the nearer it is to the right one.

Bertinetto et al. 2020, arXiv:1912.09393, for trees of tokens; of codons in HELM (arXiv:2410.12459).
Axes: N targets, V vocabulary, E edges from a token to the root, M nodes and tokens.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lexome.core import InputError
from lexome.objectives.masked import IGNORED
from lexome.sequence.genetic_codes import genetic_code

Path = tuple[str, ...]
"""Names of the nodes from below the root down to above a token; none for one below the root."""

_LEAST = math.log(2.0**-149)  # logarithm of the smallest number above 0 in float32


def codon_paths(tokens: Sequence[str], *, code: int = 1) -> list[Path]:
    """Return the path of each codon in HELM's tree: codons, start or stop or amino acid.

    ATG stands under the start alone, as in the authors' tree; a word that is no codon has a branch
    of its own.

    Parameters
    ----------
    tokens
        The vocabulary; codons in capital letters A C G T.
    code
        Number of the genetic code, see `lexome.sequence.genetic_codes`.

    Examples
    --------
    >>> codon_paths(["ATG", "GCT", "TAA", "<pad>"])
    [('codons', 'start_codon'), ('codons', 'aa_codons', 'A'), ('codons', 'end_codon'), ('pad',)]
    """
    amino_acids = genetic_code(code).amino_acids
    paths: list[Path] = []
    for token in tokens:
        if token == "ATG":
            paths.append(("codons", "start_codon"))
        elif amino_acids.get(token) == "*":
            paths.append(("codons", "end_codon"))
        elif token in amino_acids:
            paths.append(("codons", "aa_codons", amino_acids[token]))
        else:
            paths.append((token.strip("<>[]"),))
    return paths


class TokenTree:
    """A tree whose leaves are the tokens of a vocabulary.

    Parameters
    ----------
    paths
        Of each token, in the order of the ids.

    Raises
    ------
    InputError
        If there is no token.
    """

    def __init__(self, paths: Sequence[Path]):
        if not paths:
            raise InputError("the tree has no tokens. Expected a path for each token.")
        self.paths = tuple(map(tuple, paths))
        self.nodes = sorted(
            {path[:depth] for path in self.paths for depth in range(len(path) + 1)},
            key=lambda node: (-len(node), node),
        )
        """Inner nodes, the deepest first, the root last."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def edges(self) -> int:
        """Most edges from a token to the root."""
        return 1 + max(map(len, self.paths))

    def ancestors(self, token: int) -> list[int]:
        """Return the token and the nodes above it up to the root; nodes count from V on."""
        path = self.paths[token]
        above = (path[:depth] for depth in range(len(path), -1, -1))
        return [token, *(len(self) + self.nodes.index(node) for node in above)]

    def plain(self) -> tuple[Path, ...]:
        """Return the paths under the names that `plain_paths` gives."""
        under: dict[Path, set[int]] = {node: set() for node in self.nodes}
        for token, path in enumerate(self.paths):
            for depth in range(1, len(path) + 1):
                under[path[:depth]].add(token)
        return plain_paths(
            [[frozenset(under[path[:d]]) for d in range(1, len(path) + 1)] for path in self.paths]
        )

    def children(self) -> list[list[int]]:
        """Return the tokens and nodes directly below each node, in the order of `nodes`."""
        below: list[list[int]] = [[] for _ in self.nodes]
        for token, path in enumerate(self.paths):
            below[self.nodes.index(path)].append(token)
        for i, node in enumerate(self.nodes[:-1]):
            below[self.nodes.index(node[:-1])].append(len(self) + i)
        return below

    def weights(self, alpha: float) -> Tensor:
        """Return the weight of each edge of each token, (V, E), those nearest the token first.

        exp(-alpha * depth of the edge's lower end), divided by the sum over all nodes and tokens
        with the root; 0 beyond the root.
        """
        depths = [len(node) for node in self.nodes] + [len(path) + 1 for path in self.paths]
        total = math.fsum(math.exp(-alpha * depth) for depth in depths)
        weights = torch.zeros(len(self), self.edges, device="cpu")
        for token, path in enumerate(self.paths):
            deep = len(path) + 1
            values = [math.exp(-alpha * (deep - j)) / total for j in range(deep)]
            weights[token, :deep] = torch.tensor(values, device="cpu")
        return weights

    def distances(self) -> Tensor:
        """Return how many levels of the tree lie above the node that unites two tokens, (V, V).

        The height of the tree less the depth of their lowest common node; 0 for a token and
        itself.
        """
        height = self.edges
        table = torch.zeros(len(self), len(self), device="cpu")
        for i, one in enumerate(self.paths):
            for j, other in enumerate(self.paths):
                if i != j:
                    pairs = zip(one, other, strict=False)
                    table[i, j] = height - next(
                        (k for k, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other))
                    )
        return table


def plain_paths(sets: Sequence[Sequence[frozenset[int]]]) -> tuple[Path, ...]:
    """Name the nodes above each token by what stands below them.

    Parameters
    ----------
    sets
        Of each token: the tokens below each node above it, the largest first, without the root.

    Examples
    --------
    >>> pair = frozenset({0, 1})
    >>> plain_paths([[pair], [pair], []])
    (('2 from 0 at 1',), ('2 from 0 at 1',), ())
    """
    return tuple(
        tuple(f"{len(below)} from {min(below)} at {depth}" for depth, below in enumerate(way, 1))
        for way in sets
    )


def read_tree(below_VVE: Tensor, weights_VE: Tensor) -> tuple[tuple[Path, ...], float]:
    """Read the tree and the decay that HELM's training code keeps in its checkpoints.

    Parameters
    ----------
    below_VVE
        1 where the second token stands below the lower end of an edge of the first's way to the
        root, the nearest edge first (``criterion.onehot_num``).
    weights_VE
        Weight of each edge, 0 beyond the root (``criterion.weights``).

    Returns
    -------
    Paths as `plain_paths` names them, and `alpha`: exact to five decimals, to two where the weights
    are narrower than float32.

    Raises
    ------
    InputError
        If the weights do not decay with the depth alone.
    """
    counts_V = (weights_VE > 0).sum(1)
    sets = [
        [frozenset(below_VE[:, e].nonzero()[:, 0].tolist()) for e in range(int(n) - 1, 0, -1)]
        for below_VE, n in zip(below_VVE, counts_V, strict=True)
    ]
    paths = plain_paths(sets)
    token = int(counts_V.argmax())
    deepest = weights_VE[token, : int(counts_V[token])].double()
    steps = max(1, len(deepest) - 1)
    alpha = float((deepest[-1] / deepest[0]).log()) / steps
    alpha = round(alpha, 5 if weights_VE.dtype is torch.float32 else 2) + 0.0
    wanted = TokenTree(paths).weights(alpha).to(weights_VE)
    if not torch.allclose(wanted.float(), weights_VE.float(), rtol=0.02, atol=1e-6):
        raise InputError(
            "the weights of the tree do not decay by one rate with the depth, and the loss here "
            "has no other. Expected exp(-alpha * depth) over their sum, as HELM's get_weighting "
            "gives for 'exponential'."
        )
    return paths, alpha


class HierarchicalLoss:
    """Cross entropy summed over the way from the token up to the root, each edge with its weight.

    -sum_e w_e log(P(below e) / P(below e's upper end)), where P is a softmax over all tokens.
    Sums of probabilities are sums in the logarithm, from the leaves upwards, of as many numbers as
    the tree has edges, in float32 whatever the scores come in.

    A term whose probability float32 cannot hold (below 2^-149) is left out, as in the authors'
    code, where its logarithm is not taken.

    Parameters
    ----------
    tree
        Of the tokens; scores for ids beyond its last one are left out.
    alpha
        Decay of the weights with depth: 0 weighs all edges alike. HELM tried 0.2, 0.4 and 0.6. The
        weights of all nodes sum to 1, so that the loss is some fifty times smaller than plain cross
        entropy, and learning rates do not carry over.
    causal
        Whether labels are the inputs themselves, of which each is predicted at the place before.

    Examples
    --------
    >>> tree = TokenTree([("vowel",), ("vowel",), ()])
    >>> loss = HierarchicalLoss(tree, alpha=0.0)
    >>> loss(torch.zeros(1, 1, 3), torch.tensor([[0]]), {})  # (ln 2 + ln 3/2) / 5 nodes
    tensor(0.2197)
    """

    def __init__(self, tree: TokenTree, *, alpha: float = 0.2, causal: bool = False):
        self.tree, self.alpha, self.causal = tree, alpha, causal
        size, below = len(tree), tree.children()
        absent = size + len(tree.nodes)  # a place that holds minus infinity
        self._levels: list[Tensor] = []
        for depth in sorted({len(node) for node in tree.nodes}, reverse=True):
            rows = [c for node, c in zip(tree.nodes, below, strict=True) if len(node) == depth]
            widest = max(map(len, rows))
            level = [r + [absent] * (widest - len(r)) for r in rows]
            self._levels.append(
                torch.tensor(level, device="cpu")
            )  # also where models have no numbers
        ways = [tree.ancestors(token) for token in range(size)]
        ways = [way + [way[-1]] * (tree.edges + 1 - len(way)) for way in ways]
        self._ways = torch.tensor(ways, device="cpu")
        self._weights = tree.weights(alpha)

    def __call__(self, logits_BLV: Tensor, labels_BL: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the mean over the labelled positions.

        Parameters
        ----------
        logits_BLV
            Unnormalised scores, shape (..., vocabulary), any float type.
        labels_BL
            True ids; -100 where nothing is to be predicted. Without any label the loss is 0.
        batch
            ``loss_weight`` in it weighs the positions.
        """
        weight_BL = batch.get("loss_weight")
        if self.causal:
            logits_BLV, labels_BL = logits_BLV[..., :-1, :], labels_BL[..., 1:]
            weight_BL = None if weight_BL is None else weight_BL[..., 1:]
        labelled = labels_BL != IGNORED
        terms_N = self.terms(logits_BLV[labelled], labels_BL[labelled])
        if weight_BL is None:
            return terms_N.sum() / labelled.sum().clamp(min=1)
        weight_N = weight_BL[labelled].to(terms_N.dtype)
        return (terms_N * weight_N).sum() / weight_N.sum().clamp(min=1e-9)

    def terms(self, logits_NV: Tensor, labels_N: Tensor) -> Tensor:
        """Return the loss of each target, (N,), float32."""
        sums_NM = self.log_sums(logits_NV)
        ways_NE = self._ways.to(labels_N.device)[labels_N]
        way_NE = sums_NM.gather(1, ways_NE)
        lower_NE, upper_NE = way_NE[:, :-1], way_NE[:, 1:]
        held_NE = (lower_NE - sums_NM[:, -1:]) >= _LEAST
        costs_NE = torch.where(held_NE, upper_NE - lower_NE, 0.0)
        return (costs_NE * self._weights.to(labels_N.device)[labels_N]).sum(1)

    def log_sums(self, logits_NV: Tensor) -> Tensor:
        """Return the logarithm of the summed exponentials below each token and node.

        Returns
        -------
        Shape (N, M), float32: tokens, then the nodes of the tree, the root last.
        """
        values_NM = logits_NV[:, : len(self.tree)].float()
        absent_N1 = values_NM.new_full((len(values_NM), 1), -math.inf)
        size, count = len(self.tree), len(self.tree.nodes)
        for level in self._levels:
            # Nodes that are not computed yet, and the absent one, stand behind those that are.
            place = level.to(values_NM.device)
            place = torch.where(place == size + count, values_NM.shape[1], place)
            known = torch.cat([values_NM, absent_N1], 1)
            values_NM = torch.cat([values_NM, known[:, place].logsumexp(-1)], 1)
        return values_NM


def soft_labels(tree: TokenTree, hardness: float, *, as_published: bool = False) -> Tensor:
    """Spread the probability of each token over those near it in the tree.

    exp(-hardness * distance / largest distance), normalised (Bertinetto et al. 2020, section 3.2).

    Parameters
    ----------
    tree
        Of the tokens.
    hardness
        0 spreads evenly; infinity gives one-hot labels. HELM's default is 15.
    as_published
        Give a token the largest distance from itself, as HELM's code does: its own probability is
        then the smallest of all.

    Returns
    -------
    Shape (V, V): the row of a token is what to predict in its place; rows sum to 1.
    """
    distance = tree.distances()
    largest = tree.edges  # of tokens that only the root unites
    if as_published:
        distance.fill_diagonal_(largest)
    return (-hardness * distance / largest).softmax(-1)


class SoftLabelLoss:
    """Kullback-Leibler divergence from soft labels, averaged over targets and the vocabulary.

    The division by the vocabulary is `torch.nn.KLDivLoss`'s default, which HELM keeps.

    Parameters
    ----------
    tree, hardness, as_published
        See `soft_labels`. Scores for ids beyond the tree's last token are left out.
    causal
        Whether labels are the inputs themselves, of which each is predicted at the place before.
    """

    def __init__(
        self,
        tree: TokenTree,
        *,
        hardness: float = 15.0,
        causal: bool = False,
        as_published: bool = False,
    ):
        self.causal = causal
        self.labels_VV = soft_labels(tree, hardness, as_published=as_published)

    def __call__(self, logits_BLV: Tensor, labels_BL: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Return the mean over the labelled positions and the vocabulary.

        Parameters
        ----------
        logits_BLV
            Unnormalised scores, shape (..., vocabulary), any float type.
        labels_BL
            True ids; -100 where nothing is to be predicted. Without any label the loss is 0.
        batch
            Not used; every loss takes it.
        """
        if self.causal:
            logits_BLV, labels_BL = logits_BLV[..., :-1, :], labels_BL[..., 1:]
        labelled = labels_BL != IGNORED
        scores_NV = logits_BLV[labelled][:, : len(self.labels_VV)].float().log_softmax(-1)
        wanted_NV = self.labels_VV.to(scores_NV)[labels_BL[labelled]]
        total = F.kl_div(scores_NV, wanted_NV, reduction="sum")
        return total / max(1, scores_NV.numel())
