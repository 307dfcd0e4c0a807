"""What turns genes, values and conditions into vectors, and vectors of genes and cells into values.

As scGPT has them (Cui et al. 2024, Nature Methods 21, 1470).
Axes: B batch, L genes, D width, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexome.blocks.linear import Linear
from lexome.core import InputError

NORM_EPS = 1e-5
BATCH_NORM_EPS = 6.1e-5
LARGEST_VALUE = 512


class NormedTable(nn.Module):
    """A row of a table, normed: the vector of a gene, of a batch or of a kind of measurement."""

    def __init__(self, rows: int, width: int):
        super().__init__()
        self.table = nn.Embedding(rows, width)
        self.norm = nn.LayerNorm(width, NORM_EPS)
        nn.init.uniform_(self.table.weight, -0.1, 0.1)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (...) to (..., D)."""
        return self.norm(self.table(ids))


class ValueEncoder(nn.Module):
    """A number to a vector: norm(linear(ReLU(linear(value)))). Hidden values are numbers too."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.up = Linear(1, width)
        self.down = Linear(width, width)
        self.norm = nn.LayerNorm(width, NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values_BL: Tensor) -> Tensor:
        """Map (B, L) to (B, L, D)."""
        x_BL1 = values_BL.clamp(max=LARGEST_VALUE)[..., None].to(self.up.weight.dtype)
        return self.dropout(self.norm(self.down(F.relu(self.up(x_BL1)))))


class DomainNorm(nn.Module):
    """Batch norm with means and variances of its own for each domain (Chang et al. 2019, CVPR).

    The authors take the domain of a batch's first cell for all of its cells; here each cell has
    its own, so that its result does not depend on its batch-mates.
    """

    def __init__(self, width: int, domains: int):
        super().__init__()
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(width, eps=BATCH_NORM_EPS, affine=False) for _ in range(domains)
        )

    def forward(self, x_BLD: Tensor, domains_B: Tensor) -> Tensor:
        """Map (B, L, D) to (B, L, D)."""
        normed_BLD = torch.empty_like(x_BLD)
        for domain in domains_B.unique().tolist():
            rows = domains_B == domain
            normed_BLD[rows] = along_width(self.norms[domain], x_BLD[rows])
        return normed_BLD


def along_width(norm: nn.Module, x_BLD: Tensor) -> Tensor:
    """Apply a batch norm to the last axis."""
    return norm(x_BLD.transpose(1, 2)).transpose(1, 2)


def check_labels(labels: Tensor | None, count: int, what: str, shape: torch.Size) -> Tensor:
    """Return labels of conditions that a model asks for.

    Raises
    ------
    InputError
        If they are missing, of another shape, or not from 0 to `count` - 1.
    """
    if labels is None:
        raise InputError(
            f"this model tells {count} {what} apart and was given none. Expected {what} of shape "
            f"{tuple(shape)}, whole numbers from 0 to {count - 1}."
        )
    if labels.shape != shape or bool((labels < 0).any()) or bool((labels >= count).any()):
        raise InputError(
            f"{what} have the shape {tuple(labels.shape)} and go up to {labels.max().item()}. "
            f"Expected the shape {tuple(shape)}, whole numbers from 0 to {count - 1}."
        )
    return labels


def value_decoder(inputs: int, width: int) -> nn.Sequential:
    """Make the network from the vector of a gene to a number."""
    return nn.Sequential(
        Linear(inputs, width),
        nn.LeakyReLU(),
        Linear(width, width),
        nn.LeakyReLU(),
        Linear(width, 1),
    )


class CellClassifier(nn.Module):
    """Classes of a cell from its vector: linear, activation and norm, so many times, then linear.

    With `adversary` its gradient comes back with the other sign, so that what is below it learns
    to hide the classes (Ganin et al. 2016, JMLR 17, 59), and ReLU is leaky.
    """

    def __init__(self, width: int, classes: int, depth: int = 3, *, adversary: bool = False):
        super().__init__()
        self.adversary = adversary
        self.layers = nn.Sequential()
        for _ in range(depth - 1):
            activation = nn.LeakyReLU() if adversary else nn.ReLU()
            self.layers.extend([Linear(width, width), activation, nn.LayerNorm(width, NORM_EPS)])
        self.out = Linear(width, classes)

    def forward(self, cell_BD: Tensor) -> Tensor:
        """Map (B, D) to (B, C)."""
        if self.adversary:
            cell_BD = 2 * cell_BD.detach() - cell_BD
        return self.out(self.layers(cell_BD))


class FromCell(nn.Module):
    """A gene's value from the cell's vector: sigmoid(query(gene)) through a matrix, times cell.

    The authors' "masked value prediction for cell modelling", style "inner product".

    Parameters
    ----------
    genes, cell
        Widths of the genes' and of the cell's vectors.
    zeros
        Whether another matrix tells how likely the value is not zero.
    """

    def __init__(self, genes: int, cell: int, *, zeros: bool = False):
        super().__init__()
        self.query = Linear(genes, genes)
        self.mix = Linear(genes, cell, bias=False)
        self.zero = Linear(genes, cell) if zeros else None

    def forward(self, genes_BLD: Tensor, cell_BD: Tensor) -> tuple[Tensor, ...]:
        """Return values (B, L), and with `zeros` the probabilities that they are not zero."""
        queries_BLD = torch.sigmoid(self.query(genes_BLD))
        values_BL = torch.einsum("bld,bd->bl", self.mix(queries_BLD), cell_BD)
        if self.zero is None:
            return (values_BL,)
        logits_BL = torch.einsum("bld,bd->bl", self.zero(queries_BLD), cell_BD)
        return values_BL, torch.sigmoid(logits_BL)
