"""Races: many methods on many problems side by side, each run in a process of its own."""

from .entrants import Entrant as Entrant, entrant as entrant
from .pool import ClusterPool as ClusterPool, LocalPool as LocalPool
from .profiles import data_profile as data_profile, performance_profile as performance_profile
from .questions import Question as Question
from .report import write_report as write_report
from .run import Case as Case, Settings as Settings
from .runner import plan as plan, race as race
from .standings import Standings as Standings
from .store import Store as Store
