"""How a class is cut into blocks, and how work over blocks is put on devices.

The H hypotheses lie as H / width rows; a block is a number of consecutive rows, for a lattice a sub-cube: its
leading digits are fixed. Work over a class is a function of one block, applied to one after the other, so that
what it needs in between is bounded by the block and not by the class. On several devices each holds a part of the
rows and works through its own blocks. The cut depends on the class alone, and totals over blocks are taken in
the order of the blocks, so that results are the same bit for bit on any number of devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Tree = TypeVar("Tree")

BLOCK = 2**17
"""Most hypotheses of a block, unless one row has more: its arrays stay in a processor's cache."""
AXIS = "hypotheses"
_OVER_ROWS, _EVERYWHERE = PartitionSpec(AXIS), PartitionSpec()  # type: ignore[no-untyped-call]


class Blocks:
    """The blocks of one class on its devices.

    Args:
        size: H, number of hypotheses.
        width: number of hypotheses in a row.
        devices: where to compute; as many of them are used as share the blocks evenly.

    Attributes:
        count: number of blocks, B.
        rows: number of rows in a block.
        sharding: of arrays that have an entry (or several) for each row.
        everywhere: of arrays that every device holds whole.
        identity: equal for equal cuts on equal devices, for the sharing of compiled programs.

    :raises ValueError: if there is no device, or width does not divide size.
    """

    def __init__(self, size: int, width: int, devices: Sequence[jax.Device]) -> None:
        if not devices or size < 1 or size % width:
            raise ValueError(f"{size} hypotheses in rows of {width} cannot be put on {len(devices)} devices")
        rows = size // width
        self.size, self.width = size, width
        self.rows = _largest_divisor(rows, max(1, BLOCK // width))
        self.count = rows // self.rows
        used = _largest_divisor(self.count, len(devices))
        self._here = self.count // used
        self._mesh = Mesh(np.array(devices[:used]), (AXIS,))
        self.sharding = NamedSharding(self._mesh, _OVER_ROWS)
        self.everywhere = NamedSharding(self._mesh, _EVERYWHERE)
        self.devices = used
        self.identity = (size, width, self.rows, tuple(devices[:used]))

    def put(self, array: Any, *, whole: bool) -> jax.Array:
        """A copy of an array on the devices: whole on each, or each with its own rows; in its own number format."""
        with jax.enable_x64(True):
            copy: jax.Array = jax.device_put(np.array(array), self.everywhere if whole else self.sharding)
            return copy

    def each(self, function: Callable[[Any, Any], Tree], cut: Any, whole: Any) -> Tree:
        """Apply a function to every block; call it while tracing.

        Args:
            function: of a block's part of `cut` and of `whole`; returns arrays with one or more entries for each
                row of the block, and scalars.
            cut: arrays whose first axis is that of the rows, or of the hypotheses.
            whole: arrays that every block sees.

        Returns:
            What the function returns, joined along the first axis; scalars become arrays of B entries.
        """

        def here(cut: Any, whole: Any) -> Any:
            if self._here == 1:
                return jax.tree.map(jnp.atleast_1d, function(cut, whole))
            blocks = jax.tree.map(lambda array: self._cut(array, self._here), cut)
            joined = lax.map(lambda block: function(block, whole), blocks)
            return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), joined)

        return cast("Tree", self.on_each_device(here, cut, whole))

    def on_each_device(self, function: Callable[..., Any], cut: Any, whole: Any) -> Any:
        """Apply a function to every device's part of `cut`, joining what it returns; call it while tracing."""
        if self.devices == 1:
            return function(cut, whole)
        specs = (_OVER_ROWS, _EVERYWHERE)
        # What is scanned over differs between devices, what starts a loop does not; both are as they should be.
        return jax.shard_map(function, mesh=self._mesh, in_specs=specs, out_specs=_OVER_ROWS, check_vma=False)(
            cut, whole
        )

    def everywhere_whole(self, array: jax.Array) -> jax.Array:
        """The array on every device, for what is computed over all hypotheses at once; call it while tracing."""
        if self.devices == 1:
            return array
        return cast("jax.Array", lax.with_sharding_constraint(array, self.everywhere))  # type: ignore[no-untyped-call]

    def block(self, tree: Tree, place: jax.Array) -> Tree:
        """Block number `place` of this device's part of arrays whose first axis is that of rows or hypotheses."""

        def slice_of(array: jax.Array) -> jax.Array:
            length = array.shape[0] // self._here
            return lax.dynamic_slice_in_dim(array, place * length, length)

        return jax.tree.map(slice_of, tree) if self._here > 1 else tree

    @property
    def of_device(self) -> int:
        """Number of blocks on each device."""
        return self._here

    def first_of_device(self) -> jax.Array:
        """Number of the first block of the device that runs this; call it inside `on_each_device`."""
        if self.devices == 1:
            return jnp.zeros((), jnp.int64)
        device: jax.Array = lax.axis_index(AXIS)
        return device.astype(jnp.int64) * self._here

    def of_rows(self, values: jax.Array) -> jax.Array:
        """The largest entry of each of this device's blocks, from one entry for each row."""
        return jnp.max(values.reshape(self._here, -1), axis=1)

    def entry(self, array: jax.Array, place: int) -> float:
        """One entry of an array over the hypotheses, without moving the array."""
        length = self.size // self.devices
        shard = next(
            shard for shard in array.addressable_shards if (shard.index[0].start or 0) == place // length * length
        )
        if shard.device.platform == "cpu":
            return float(np.asarray(shard.data)[place % length])
        with jax.enable_x64(True):
            return float(shard.data[place % length])

    def total(self, of_blocks: jax.Array) -> jax.Array:
        """The sum over all blocks of one float64 for each, in the order of the blocks; call it while tracing."""
        if self.count == 1:
            return of_blocks[0]
        values = self.everywhere_whole(of_blocks)
        start = jnp.zeros((), values.dtype)
        total: jax.Array = lax.fori_loop(0, self.count, lambda i, total: total + values[i], start)
        return total

    def _cut(self, array: jax.Array, count: int) -> jax.Array:
        return array.reshape(count, array.shape[0] // count, *array.shape[1:])


def _largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of a number that is at most the limit."""
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)
