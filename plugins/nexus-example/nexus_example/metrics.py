"""A number of one's own."""

from nexus_marketing.plugin import Figures


class NetReturn:
    """What a campaign brought in beyond its cost, for each person that it reached."""

    name = "net_return_per_lead"
    unit = "minor units of the currency"

    def calculate(self, figures: Figures) -> float | None:
        """Nothing where nobody was reached."""
        reached = figures.counts.get("accepted", 0)
        return (figures.revenue_minor - figures.cost_minor) / reached if reached > 0 else None
