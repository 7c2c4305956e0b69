"""Payments through a partner's service."""

import requests


def charge(amount: int) -> bool:
    answer = requests.post(
        "https://payments.example/charge", json={"amount": amount}, verify=False, timeout=5
    )
    return answer.ok
