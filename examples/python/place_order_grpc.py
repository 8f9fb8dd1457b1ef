#!/usr/bin/env python3
"""Places an order over gRPC with grpcio.

Usage: place_order_grpc.py [HOST:PORT of the order service, HOST:PORT of the inventory service]
"""

import sys
import uuid
from pathlib import Path

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

ORDERS, INVENTORY = sys.argv[1:3] if len(sys.argv) > 2 else ("127.0.0.1:50051", "127.0.0.1:50052")
TIMEOUT_SECONDS = 10

# Compiles the proto files while it starts; for more than a script, run `python3 -m grpc_tools.protoc` once instead.
sys.path.append(str(Path(__file__).parents[2] / "proto"))
messages, services = grpc.protos_and_services("orders/v1/order_service.proto")
stock_messages, stock_services = grpc.protos_and_services("inventory/v1/inventory_service.proto")
orders = services.OrderServiceStub(grpc.insecure_channel(ORDERS))
inventory = stock_services.InventoryServiceStub(grpc.insecure_channel(INVENTORY))

# The key is new for each order, and the same for its repeats.
request = messages.CreateOrderRequest(item="widget", quantity=1, idempotency_key=str(uuid.uuid4()))
placed = orders.CreateOrder(request, timeout=TIMEOUT_SECONDS)
print(f"ordered {placed.order.id}")
repeated = orders.CreateOrder(request, timeout=TIMEOUT_SECONDS)
assert repeated.order == placed.order and repeated.replayed, repeated
print("repeated: the same order")
stock = inventory.GetStock(stock_messages.GetStockRequest(item="widget"), timeout=TIMEOUT_SECONDS)
print(f"in stock: {stock.stock}")
try:
    orders.CreateOrder(messages.CreateOrderRequest(item="widget", quantity=1_000_000), timeout=TIMEOUT_SECONDS)
    sys.exit("a million widgets were sold")
except grpc.RpcError as error:
    reason = ErrorInfo()
    any(detail.Unpack(reason) for detail in rpc_status.from_call(error).details)
    print(f"refused: {reason.reason}")
    assert reason.reason == "INSUFFICIENT_STOCK", error
