"""Networks with given weights on a CPU: a program of a few fused kernels for each graph."""

from ghnas.executors.fused.kernels import are_compiled
from ghnas.executors.fused.lowering import Unsupported, lower
from ghnas.executors.fused.machine import FusedExecutor, compile_kernels
from ghnas.executors.fused.program import Program

__all__ = ["FusedExecutor", "Program", "Unsupported", "are_compiled", "compile_kernels", "lower"]
