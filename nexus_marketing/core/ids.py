"""Names for the integers that must not be mixed up.

Ids leave the API as decimal strings (DESIGN.md 4.13); inside they are 64-bit integers.
"""

from typing import NewType

from nexus_marketing.core.errors import NotFound

TenantId = NewType("TenantId", int)
LeadId = NewType("LeadId", int)
CampaignId = NewType("CampaignId", int)
SendId = NewType("SendId", int)

MAX_ID = 2**63 - 1


def parse_id(text: str, what: str = "resource") -> int:
    """Read an id that came from outside; anything that cannot be one is simply not found.

    Raises:
        NotFound: the text is not a positive 64-bit decimal number. Answering "not found"
            keeps malformed, foreign and unknown ids indistinguishable to a caller.
    """
    if text.isascii() and text.isdigit() and len(text) <= 19 and 0 < int(text) <= MAX_ID:
        return int(text)
    raise NotFound(f"There is no {what} with this id.")
