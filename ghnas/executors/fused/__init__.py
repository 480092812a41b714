"""Networks on a CPU: a program of a few fused kernels for each graph, forward and backward."""

from ghnas.executors.fused.differentiation import lower_training
from ghnas.executors.fused.kernels import are_compiled
from ghnas.executors.fused.lowering import Unsupported, lower
from ghnas.executors.fused.machine import FusedExecutor, compile_gradients, compile_kernels
from ghnas.executors.fused.network import FusedNetwork
from ghnas.executors.fused.program import Program, TrainingProgram

__all__ = [
    "FusedExecutor",
    "FusedNetwork",
    "Program",
    "TrainingProgram",
    "Unsupported",
    "are_compiled",
    "compile_gradients",
    "compile_kernels",
    "lower",
    "lower_training",
]
