"""A journey tried out: the engine of ``core.engine.journeys`` on a virtual clock, against leads and stated rates."""

from nexus_marketing.core.engine.simulation.assumptions import Assumptions, Pacing, read_rates
from nexus_marketing.core.engine.simulation.people import Person, made_up, person_of
from nexus_marketing.core.engine.simulation.report import Report
from nexus_marketing.core.engine.simulation.world import World

__all__ = ["Assumptions", "Pacing", "Person", "Report", "World", "made_up", "person_of", "read_rates"]
