"""Many networks as one population, for a GPU."""

from ghnas.executors.grouped.executor import GroupedExecutor
from ghnas.executors.grouped.networks import GroupedNetworks
from ghnas.executors.grouped.plan import Plan, plan
from ghnas.executors.grouped.schedule import Schedule, schedule

__all__ = ["GroupedExecutor", "GroupedNetworks", "Plan", "Schedule", "plan", "schedule"]
