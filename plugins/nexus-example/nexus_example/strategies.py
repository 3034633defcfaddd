"""When enough people have agreed."""

from nexus_marketing.plugin import Approvals


class FourEyes:
    """Two of those who were asked agree, or the only one; a role that the tenant names (``veto_role``) can stop it."""

    name = "four_eyes"

    def can_proceed(self, approvals: Approvals) -> bool:
        """The last word of each counts."""
        last = {each.approver_id: each for each in approvals.given if each.approver_id in approvals.asked}
        veto = approvals.settings.get("veto_role")
        if veto and any(each.role == veto and not each.is_granted for each in last.values()):
            return False
        agreed = sum(each.is_granted for each in last.values())
        return agreed >= min(2, len(approvals.asked)) > 0
