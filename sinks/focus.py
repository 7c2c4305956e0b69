"""Costs as rows of FOCUS, the FinOps Open Cost and Usage Specification (1.2), in CSV.

Rules:
- One row for each cost of the ledger: nothing is added up, so nothing can be lost in it. The charge
  period is the hour in which the attempt had ended, the billing period its month, in UTC.
- Numbers are exact decimals, an empty cell is null. Discounts and commitments are not known here:
  billed, effective, listed and contracted cost are the same.
- What FOCUS has no column for is in columns of our own, whose names begin with `x_`.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

VERSION: Final = "1.2"

COLUMNS: Final = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingCurrency",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
    "x_Agent",
    "x_Attempt",
    "x_EventEntry",
    "x_EventId",
    "x_Item",
    "x_Kind",
    "x_Model",
    "x_Node",
    "x_PriceVersion",
    "x_Workflow",
    "x_WorkflowVersion",
)

_CATEGORIES: Final = {
    "compute": ("Compute", "Other (Compute)"),
    "tokens": ("AI and Machine Learning", "Generative AI"),
    "api": ("Other", "Other (Other)"),
}
_ACCOUNT: Final = "CommandCenter"

Row = Mapping[str, Any]


def heading() -> bytes:
    """The line with the names of the columns."""
    return _csv([COLUMNS])


def lines(costs: Iterable[Row]) -> bytes:
    """A line for each cost.

    Args:
        costs: Rows as `sinks.costs.Costs.entries` gives them.
    """
    return _csv(_cells(cost) for cost in costs)


def _csv(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _cells(cost: Row) -> list[str]:
    known = _known(cost)
    return [known.get(name, "") for name in COLUMNS]


def _known(cost: Row) -> dict[str, str]:
    at: datetime = cost["at"].astimezone(UTC)
    hour = at.replace(minute=0, second=0, microsecond=0)
    month = hour.replace(day=1, hour=0)
    category, subcategory = _CATEGORIES[cost["kind"]]
    amount, quantity, price = (_number(cost[key]) for key in ("amount", "quantity", "unit_price"))
    sku = "/".join(part for part in (cost["source"], cost["model"], cost["unit"]) if part)
    place = cost["node"] if cost["item"] < 0 else f"{cost['node']}.{cost['item']}"
    return {
        "BilledCost": amount,
        "BillingAccountId": _ACCOUNT.lower(),
        "BillingAccountName": _ACCOUNT,
        "BillingAccountType": "Deployment",
        "BillingCurrency": cost["currency"],
        "BillingPeriodEnd": _time((month + timedelta(days=32)).replace(day=1)),
        "BillingPeriodStart": _time(month),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{cost['kind']} of {cost['source']}: {quantity} {cost['unit']} in"
        f" attempt {cost['attempt']} at {place} of workflow {cost['workflow']}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": _time(hour + timedelta(hours=1)),
        "ChargePeriodStart": _time(hour),
        "ConsumedQuantity": quantity,
        "ConsumedUnit": cost["unit"],
        "ContractedCost": amount,
        "ContractedUnitPrice": price,
        "EffectiveCost": amount,
        "InvoiceIssuerName": cost["source"],
        "ListCost": amount,
        "ListUnitPrice": price,
        "PricingCategory": "Standard",
        "PricingCurrency": cost["currency"],
        "PricingQuantity": quantity,
        "PricingUnit": cost["unit"],
        "ProviderName": cost["source"],
        "PublisherName": cost["source"],
        "ResourceId": cost["run_id"],
        "ResourceName": cost["workflow"],
        "ResourceType": "Workflow run",
        "ServiceCategory": category,
        "ServiceName": cost["model"] or cost["source"],
        "ServiceSubcategory": subcategory,
        "SkuId": sku,
        "SkuPriceId": f"{sku}@{cost['price_version']}" if cost["price_version"] else sku,
        "SubAccountId": cost["project"],
        "SubAccountName": cost["project"],
        "SubAccountType": "Project",
        # A tag without a value is a key that is true.
        "Tags": json.dumps(dict.fromkeys(cost["tags"], True), separators=(",", ":")),
        "x_Agent": cost["agent"],
        "x_Attempt": str(cost["attempt"]),
        "x_EventEntry": str(cost["entry"]),
        "x_EventId": f"{cost['run_id']}/{cost['seq']}",
        "x_Item": "" if cost["item"] < 0 else str(cost["item"]),
        "x_Kind": cost["kind"],
        "x_Model": cost["model"],
        "x_Node": cost["node"],
        "x_PriceVersion": cost["price_version"],
        "x_Workflow": cost["workflow"],
        "x_WorkflowVersion": str(cost["version"]),
    }


def _number(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
