"""Checkpoint keys as one table that serves loading and saving.

Published key on the left, ours on the right. ``{i}`` and ``{j}`` stand for a number, ``{p}`` for
``weight`` or ``bias``, ``{rest}`` for anything. Names on our side are those of the backbone;
``head.`` opens the names of the head.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lexome.core import CheckpointMismatch, nearest

_FIELDS = {"i": r"\d+", "j": r"\d+", "p": r"weight|bias", "rest": r".+"}
_LISTED = 8  # names shown in an error before "and N more"


class _Pattern:
    """One side of a rule: matches a name and yields its fields, or fills fields into a name."""

    def __init__(self, text: str):
        self.text = text
        regex, seen = "", set()
        for part in re.split(r"(\{\w+\})", text):
            name = part[1:-1] if part.startswith("{") else None
            if name is None:
                regex += re.escape(part)
            elif name in seen:
                regex += f"(?P={name})"
            else:
                seen.add(name)
                regex += f"(?P<{name}>{_FIELDS[name]})"
        self.regex = re.compile(regex)
        self.literal = not seen

    def match(self, name: str) -> dict[str, str] | None:
        if self.literal:
            return {} if name == self.text else None
        found = self.regex.fullmatch(name)
        return found.groupdict() if found else None

    def fill(self, fields: Mapping[str, str]) -> str:
        return self.text.format(**fields)


@dataclass(frozen=True)
class _Claim:
    """Which published tensors make which of ours: rename and turn 1:1, join n:1, split 1:n."""

    published: tuple[str, ...]
    ours: tuple[str, ...]
    turned: bool = False


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What a key map says of one checkpoint: every published key in exactly one place.

    Attributes
    ----------
    claims
        Renames, joins and splits.
    unused
        Keys that the model does not need, with the reason.
    unclaimed, doubly
        Keys that no rule, or more than one rule, takes.
    incomplete
        Joins of which some published parts are missing, as {missing key: our name}.
    """

    claims: tuple[_Claim, ...]
    unused: Mapping[str, str]
    unclaimed: tuple[str, ...]
    doubly: tuple[str, ...]
    incomplete: Mapping[str, str]

    @property
    def ours(self) -> set[str]:
        """Names of ours that the checkpoint fills."""
        return {name for claim in self.claims for name in claim.ours}

    def faults(self, wanted: Iterable[str], optional: Iterable[str] = ()) -> int:
        """Count what keeps the checkpoint from filling all of `wanted` and nothing else.

        Names in `optional` may be filled or not: the second names of tied tensors.
        """
        wanted, ours = set(wanted), self.ours
        spare = ours - wanted - set(optional)
        lost = len(self.unclaimed) + len(self.doubly) + len(self.incomplete)
        return lost + len(spare) + len(wanted - ours)


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """A strict, invertible table between published names and ours.

    Attributes
    ----------
    rename
        {published: ours}, the same tensor under another name.
    join
        {ours: published parts}, parts laid one after the other along the first axis.
    split
        {published: our parts}, equal parts along the first axis.
    turn
        {published: ours}, matrices that are stored with their axes exchanged.
    unused
        {published: reason}. Such tensors are carried along and written back, never dropped.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    join: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    split: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    turn: Mapping[str, str] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)

    def without(self, prefix: str) -> "KeyMap":
        """Return the table for files whose published names lack a prefix.

        Examples
        --------
        >>> KeyMap(rename={"bert.embed.weight": "embed.weight"}).without("bert.").rename
        {'embed.weight': 'embed.weight'}
        """

        def bare(name: str) -> str:
            return name.removeprefix(prefix)

        return KeyMap(
            rename={bare(p): ours for p, ours in self.rename.items()},
            join={ours: tuple(map(bare, parts)) for ours, parts in self.join.items()},
            split={bare(p): ours for p, ours in self.split.items()},
            turn={bare(p): ours for p, ours in self.turn.items()},
            unused={bare(p): reason for p, reason in self.unused.items()},
        )

    def resolve(self, published: Collection[str]) -> Resolution:
        """Place every published key."""
        present = set(published)
        singles = [(_Pattern(p), (_Pattern(o),), False) for p, o in self.rename.items()]
        singles += [(_Pattern(p), tuple(map(_Pattern, o)), False) for p, o in self.split.items()]
        singles += [(_Pattern(p), (_Pattern(o),), True) for p, o in self.turn.items()]
        joins = [(tuple(map(_Pattern, p)), _Pattern(o)) for o, p in self.join.items()]
        unused = [(_Pattern(p), reason) for p, reason in self.unused.items()]
        claims: dict[tuple[str, ...], _Claim] = {}
        dropped, incomplete = {}, {}
        unclaimed, doubly = [], []
        for name in published:
            takers = 0
            for left, right, turned in singles:
                if (fields := left.match(name)) is not None:
                    takers += 1
                    ours = tuple(r.fill(fields) for r in right)
                    claims[(name,)] = _Claim((name,), ours, turned)
            for parts, whole in joins:
                for part in parts:
                    if (fields := part.match(name)) is None:
                        continue
                    takers += 1
                    names = tuple(p.fill(fields) for p in parts)
                    missing = [n for n in names if n not in present]
                    incomplete.update(dict.fromkeys(missing, whole.fill(fields)))
                    if not missing:
                        claims[names] = _Claim(names, (whole.fill(fields),))
            if not takers:
                for left, reason in unused:
                    if left.match(name) is not None:
                        takers += 1
                        dropped[name] = reason
            if takers == 0:
                unclaimed.append(name)
            elif takers > 1:
                doubly.append(name)
        return Resolution(
            claims=tuple(claims.values()),
            unused=dropped,
            unclaimed=tuple(unclaimed),
            doubly=tuple(doubly),
            incomplete=incomplete,
        )

    def names_all(self, ours: Iterable[str]) -> bool:
        """Say whether the table has a published name for each of our names."""
        return not self._place(ours)[1]

    def published_names(self, ours: Iterable[str]) -> list[_Claim]:
        """Give the published names for our names, in the order of ours."""
        claims, left = self._place(ours)
        if left:
            raise CheckpointMismatch(
                f"the key table has no published name for {_some(left)}. Add rules to it."
            )
        return claims

    def _place(self, ours: Iterable[str]) -> tuple[list[_Claim], list[str]]:
        """Return what is published of our names, and those of them that no rule has."""
        ours = list(ours)
        wanted = set(ours)
        rules = [((_Pattern(o),), (_Pattern(p),), False) for p, o in self.rename.items()]
        rules += [((_Pattern(o),), tuple(map(_Pattern, p)), False) for o, p in self.join.items()]
        rules += [(tuple(map(_Pattern, o)), (_Pattern(p),), False) for p, o in self.split.items()]
        rules += [((_Pattern(o),), (_Pattern(p),), True) for p, o in self.turn.items()]
        claims: dict[tuple[str, ...], _Claim] = {}
        left = []
        for name in ours:
            for targets, sources, turned in rules:
                fields = next((f for t in targets if (f := t.match(name)) is not None), None)
                if fields is None:
                    continue
                names = tuple(t.fill(fields) for t in targets)
                if wanted.issuperset(names):
                    published = tuple(s.fill(fields) for s in sources)
                    claims[published] = _Claim(published, names, turned)
                    break
            else:
                left.append(name)
        return list(claims.values()), left


def to_ours(
    resolution: Resolution,
    published: Mapping[str, Tensor],
    join: Callable[[Sequence[str]], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Turn published tensors into ours; nothing is copied but joins and turns.

    Parameters
    ----------
    resolution
        What the key map made of the names.
    published
        The tensors by published name.
    join
        Lays the tensors of some names one after the other, where it can be done without a copy.

    Raises
    ------
    CheckpointMismatch
        If tensors cannot be joined, split or turned for their shapes or types.
    """
    out: dict[str, Tensor] = {}
    for claim in resolution.claims:
        parts = [published[name] for name in claim.published]
        if not _fit(claim, parts):
            given = ", ".join(f"{name} {tuple(published[name].shape)}" for name in claim.published)
            raise CheckpointMismatch(
                f"tensors have a shape or a type that gives no {' and '.join(claim.ours)}: "
                f"{given}. Check that the weights and the configuration belong together."
            )
        if len(parts) > 1:
            parts = [torch.cat(parts) if join is None else join(claim.published)]
        elif len(claim.ours) > 1:
            parts = list(parts[0].chunk(len(claim.ours)))
        elif claim.turned:
            parts = [parts[0].T.contiguous()]
        out.update(zip(claim.ours, parts, strict=True))
    return out


def _fit(claim: _Claim, parts: Sequence[Tensor]) -> bool:
    """Say whether tensors can be joined, split or turned as is asked."""
    first, count = parts[0], len(claim.ours)
    if len(parts) > 1:
        kinds = {(part.is_floating_point(), part.shape[1:]) for part in parts}
        return first.ndim > 0 and len(kinds) == 1
    if count > 1:
        return first.ndim > 0 and first.shape[0] % count == 0 and first.shape[0] > 0
    return not claim.turned or first.ndim == 2


def to_published(claims: Iterable[_Claim], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn our tensors into published ones, the inverse of `to_ours`."""
    out: dict[str, Tensor] = {}
    for claim in claims:
        parts = [ours[name] for name in claim.ours]
        if len(parts) > 1:
            parts = [torch.cat(parts)]
        elif len(claim.published) > 1:
            parts = list(parts[0].chunk(len(claim.published)))
        elif claim.turned:
            parts = [parts[0].T.contiguous()]
        out.update(zip(claim.published, parts, strict=True))
    return out


def explain(
    resolution: Resolution,
    keymap: KeyMap,
    where: str,
    wanted: Collection[str],
    optional: Collection[str] = (),
) -> CheckpointMismatch:
    """Describe in one error all that is wrong, with the nearest names.

    Parameters
    ----------
    resolution, keymap
        What the key map made of the file's keys.
    where
        The file, for the message.
    wanted, optional
        Names of ours that must, and that may be filled.
    """
    expected = {p for c in keymap.published_names(wanted) for p in c.published}
    lines = []
    absent = sorted(
        p
        for claim in keymap.published_names(set(wanted) - resolution.ours)
        for p in claim.published
    )
    for name in absent[:_LISTED]:
        close = nearest(name, [*resolution.unclaimed, *resolution.unused], 1)
        lines.append(f"  missing     {name}" + (f"   (the file has {close[0]})" if close else ""))
    if len(absent) > _LISTED:
        lines.append(f"  missing     ... and {len(absent) - _LISTED} more")
    extra = [(n, "unexpected") for n in resolution.unclaimed]
    extra += [(n, "claimed twice") for n in resolution.doubly]
    spare = resolution.ours - set(wanted) - set(optional)
    extra += [
        (p, "unexpected") for c in resolution.claims if spare & {*c.ours} for p in c.published
    ]
    for name, why in extra[:_LISTED]:
        close = nearest(name, expected, 1)
        lines.append(f"  {why:<11} {name}" + (f"   (nearest: {close[0]})" if close else ""))
    if len(extra) > _LISTED:
        lines.append(f"  unexpected  ... and {len(extra) - _LISTED} more")
    return CheckpointMismatch(
        f"{where}: {len(absent)} keys missing and {len(extra)} not expected.\n"
        + "\n".join(lines)
        + "\nCheck that the weights and the configuration belong together, or name another "
        "family with family=."
    )


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_LISTED])
    return shown + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
