"""Amounts: integer minor units inside, major units outside (DESIGN.md 4.11)."""

from collections.abc import Mapping
from decimal import Decimal, DecimalException
from typing import Final

from nexus_marketing.core.errors import ValidationError

_MINOR_DIGITS: Final[Mapping[str, int]] = {
    "JPY": 0, "KRW": 0, "ISK": 0, "CLP": 0, "VND": 0, "BHD": 3, "KWD": 3, "TND": 3,
}  # fmt: skip


def minor_units(amount: object, currency: str | None, path: str = "budget") -> int:
    """An amount in major units (number or decimal text) as integer minor units.

    >>> minor_units("12.50", "EUR")
    1250

    Raises:
        ValidationError: it is no amount, is negative, beyond 2^53, or has more decimals than the currency.
    """
    digits = _MINOR_DIGITS.get(currency, 2) if isinstance(currency, str) else 2
    try:
        minor = Decimal(str(amount)).scaleb(digits)
    except DecimalException:
        minor = Decimal("NaN")
    if not minor.is_finite():
        raise ValidationError.at(path, "not_money", f"{amount!a} is no amount: write 1000 or '1000.00'.")
    if minor != minor.to_integral_value() or minor < 0 or minor > 2**53:
        unit = f" in {currency}" if currency else ""
        raise ValidationError.at(
            path, "not_money", f"{amount} is no amount{unit}: at most {digits} decimals, not negative."
        )
    return int(minor)


def major_units(minor: int | None, currency: str | None) -> str | None:
    """Minor units as a decimal string in major units."""
    if minor is None:
        return None
    return f"{Decimal(minor).scaleb(-_MINOR_DIGITS.get(currency or '', 2)):f}"
