"""How many tokens training computes for rows of given lengths: padded in batches, or packed into full sequences."""

from typing import NamedTuple

import numpy as np

GROUP, BIN = 100_000, 200  # Axolotl's sample_packing_group_size and sample_packing_bin_size


class Cost(NamedTuple):
    """What one pass through the rows takes.

    Attributes:
        sequences: Sequences that the model sees.
        tokens: Tokens that it computes, padding with the others.
    """

    sequences: int
    tokens: int


def costs(lengths: np.ndarray, sequence_len: int, batch: int, seed: int) -> dict[str, Cost]:
    """Compare the ways to make batches of rows, in a random order.

    Args:
        lengths: Tokens of each row, none over sequence_len.
        sequence_len: Tokens of a sequence.
        batch: Sequences of a batch, micro_batch_size.
        seed: Of the order.

    Returns:
        "longest" (each batch padded to its longest row), "sequence_len" (every row padded to it) and "packed" (rows
        put into sequences, each into the first with room for it, as Axolotl does).
    """
    shuffled = np.random.default_rng(seed).permutation(lengths)
    rows = len(lengths)
    sequences = packed(shuffled, sequence_len)
    return {
        "longest": Cost(rows, padded(shuffled, batch)),
        "sequence_len": Cost(rows, rows * sequence_len),
        "packed": Cost(sequences, sequences * sequence_len),
    }


def padded(lengths: np.ndarray, batch: int) -> int:
    """Count the tokens of batches, in the order given, each row padded to the longest of its batch."""
    longest = np.maximum.reduceat(lengths, np.arange(0, len(lengths), batch)) if len(lengths) else lengths
    sizes = np.minimum(batch, len(lengths) - batch * np.arange(len(longest)))
    return int((longest.astype(np.int64) * sizes).sum())


def packed(lengths: np.ndarray, capacity: int) -> int:
    """Count the sequences that first-fit packing fills with rows in the order given, by Axolotl's own code."""
    from axolotl.utils.samplers.multipack import pack_parallel

    return len(pack_parallel(lengths.astype(np.int32), capacity, GROUP, BIN, num_processes=1)) if len(lengths) else 0
