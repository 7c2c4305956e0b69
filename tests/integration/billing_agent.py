"""An agent whose steps cost something, keep something, and need a secret."""

from pydantic import BaseModel

from agents import Agent, Blob, Context

billing = Agent("billing", description="Costs something.", version="4.2.0", rate="6", concurrency=7)


class Asked(BaseModel):
    fail: int = 0


class Kept(BaseModel):
    report: Blob
    secret: int


@billing.action
def bill(inputs: Asked, context: Context) -> Kept:
    context.cost.record(
        kind="tokens",
        source="provider",
        model="small",
        quantity=1_000,
        unit="input_token",
        unit_price="0.0000001",
        price_version="2026-11-01",
    )
    if context.attempt <= inputs.fail:
        raise ValueError(f"not yet with {context.secrets['BILLING']}")
    (context.workspace / "report").write_text("paid")
    content = (context.workspace / "report").read_bytes()
    return Kept(
        report=context.blobs.write(content, media_type="text/plain", name="report"),
        secret=len(context.secrets["BILLING"]),
    )
