#!/usr/bin/env python3
"""Places an order over HTTP with requests. Usage: place_order_requests.py [http://HOST:PORT of the edge]"""

import sys
import uuid

import requests

EDGE = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
TIMEOUT_SECONDS = 10


def order(quantity: int, key: str) -> requests.Response:
    body = {"item": "widget", "quantity": quantity}
    return requests.post(f"{EDGE}/orders", json=body, headers={"Idempotency-Key": key}, timeout=TIMEOUT_SECONDS)


key = str(uuid.uuid4())  # new for each order, the same for its repeats
placed = order(1, key)
placed.raise_for_status()
print(f"ordered {placed.json()['id']}")
repeated = order(1, key)
assert repeated.json() == placed.json() and repeated.headers["Idempotent-Replayed"] == "true", repeated.text
print("repeated: the same order")
print(f"in stock: {requests.get(f'{EDGE}/inventory/widget', timeout=TIMEOUT_SECONDS).json()['stock']}")
problem = order(1_000_000, str(uuid.uuid4())).json()
print(f"refused: {problem['reason']}")
assert problem["reason"] == "INSUFFICIENT_STOCK", problem
