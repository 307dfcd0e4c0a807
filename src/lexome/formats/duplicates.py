"""Names that must not come twice, remembered in a few bytes each."""

from collections import defaultdict

from lexome.core import FormatError

_BUCKETS = 1 << 16
_KEPT_BYTES = 6  # of a 64-bit hash; the bucket number holds the other two


class SeenIds:
    """A set of names that costs about 7 bytes a name, so that a file of 10^8 reads can be checked.

    It compares 64-bit hashes: of 10^8 different names, two are taken for equal with a chance of
    3 in 10,000.
    """

    def __init__(self) -> None:
        self._buckets: defaultdict[int, bytearray] = defaultdict(bytearray)

    def add(self, name: str) -> bool:
        """Remember `name`; tell whether it is new."""
        code = hash(name) & 0xFFFF_FFFF_FFFF_FFFF
        bucket = self._buckets[code % _BUCKETS]
        kept = (code // _BUCKETS).to_bytes(_KEPT_BYTES, "little")
        at = bucket.find(kept)
        while at % _KEPT_BYTES and at != -1:  # a hit across two entries is none
            at = bucket.find(kept, at + 1)
        if at != -1:
            return False
        bucket += kept
        return True

    def check(self, name: str, path: str, line_1based: int) -> None:
        """Remember `name`, or raise if it has come before.

        Raises
        ------
        FormatError
            With the line of the second occurrence.
        """
        if not self.add(name):
            raise FormatError(
                path,
                f"the name {name!r} comes a second time. Expected every record to have a name of "
                "its own, since results are joined by it; rename or remove one of the two.",
                line_1based,
            )
