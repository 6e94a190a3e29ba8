"""From graph to program: fusion, order, memory."""

from fastnn.plan.fuse import losses_on_logits
from fastnn.plan.memory import aligned, zeros
from fastnn.plan.plan import ARENA, Operand, Plan, Step

__all__ = ["ARENA", "Operand", "Plan", "Step", "aligned", "losses_on_logits", "zeros"]
