"""Networks with given weights on a CPU: a program of a few fused kernels for each graph."""

from ghnas.fused.kernels import are_compiled
from ghnas.fused.lowering import Unsupported, lower
from ghnas.fused.machine import Machine, compile_kernels
from ghnas.fused.program import Program

__all__ = ["Machine", "Program", "Unsupported", "are_compiled", "compile_kernels", "lower"]
