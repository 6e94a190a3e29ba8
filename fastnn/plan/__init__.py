"""From graph to program: fusion, algorithms, order, memory."""

from fastnn.plan.algorithms import choose
from fastnn.plan.fuse import epilogues, losses_on_logits
from fastnn.plan.layout import ARENA, CONSTANTS
from fastnn.plan.memory import aligned, zeros
from fastnn.plan.norms import fold_norms, fused_norms
from fastnn.plan.plan import Operand, Pass, Plan, Step

__all__ = [
    "ARENA",
    "CONSTANTS",
    "Operand",
    "Pass",
    "Plan",
    "Step",
    "aligned",
    "choose",
    "epilogues",
    "fold_norms",
    "fused_norms",
    "losses_on_logits",
    "zeros",
]
