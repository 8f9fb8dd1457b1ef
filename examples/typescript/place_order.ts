// Places an order by gRPC-Web with connect-web, in Node or a browser.
// Usage: npm start [http://HOST:PORT of the order service] [of the inventory service]
import assert from "node:assert";
import { ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { ErrorInfoSchema } from "./generated/google/rpc/error_details_pb.js";
import { InventoryService } from "./generated/inventory/v1/inventory_service_pb.js";
import { OrderService } from "./generated/orders/v1/order_service_pb.js";

const [ordersUrl = "http://127.0.0.1:50051", inventoryUrl = "http://127.0.0.1:50052"] = process.argv.slice(2);
const transport = (baseUrl: string) => createGrpcWebTransport({ baseUrl, defaultTimeoutMs: 10_000 });
const orders = createClient(OrderService, transport(ordersUrl));
const inventory = createClient(InventoryService, transport(inventoryUrl));

// The key is new for each order, and the same for its repeats.
const request = { item: "widget", quantity: 1n, idempotencyKey: crypto.randomUUID() };
const placed = await orders.createOrder(request);
console.log(`ordered ${placed.order?.id}`);
const repeated = await orders.createOrder(request);
assert(repeated.replayed && repeated.order?.id === placed.order?.id);
console.log("repeated: the same order");
const { stock } = await inventory.getStock({ item: "widget" });
console.log(`in stock: ${stock}`);
try {
  await orders.createOrder({ item: "widget", quantity: 1_000_000n });
  assert.fail("a million widgets were sold");
} catch (error) {
  const reason = ConnectError.from(error).findDetails(ErrorInfoSchema)[0]?.reason;
  console.log(`refused: ${reason}`);
  assert.equal(reason, "INSUFFICIENT_STOCK");
}
