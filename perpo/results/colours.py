"""The one palette: Okabe and Ito's, which colour-blind people tell apart (https://jfly.uni-koeln.de/color/)."""

from perpo import methods

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
"""For runs, in their order."""

TRUTH, BASELINE, CANDIDATE = PALETTE[2], PALETTE[0], PALETTE[1]
"""The truth and two runs that are held against each other; no run of several is drawn in the truth's colour."""

RUNS = tuple(colour for colour in PALETTE if colour != TRUTH)
"""For runs that are shown with the truth."""

BY_METHOD = {methods.UNTRAINED: PALETTE[6]} | {row.title: PALETTE[row.colour] for row in methods.METHODS.values()}
"""For runs that are told apart by how they were trained, in the order of tables."""

BETTER, WORSE = PALETTE[2], PALETTE[1]
"""For numbers that became better or worse."""
