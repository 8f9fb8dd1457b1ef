#!/bin/sh
# Places an order over gRPC with grpcurl. Usage: grpcurl.sh [HOST:PORT of the order service] [of the inventory service]
set -eu
orders=${1:-127.0.0.1:50051}
inventory=${2:-127.0.0.1:50052}
key=$(cat /proc/sys/kernel/random/uuid) # new for each order, the same for its repeats

# order QUANTITY: asks for so many widgets.
order() {
    grpcurl -plaintext -d "{\"item\":\"widget\",\"quantity\":$1,\"idempotency_key\":\"$key-$1\"}" \
        "$orders" orders.v1.OrderService/CreateOrder
}
# member NAME: the value of the JSON member, without its quotes.
member() {
    sed -n "s/.*\"$1\": \{0,1\}\"\([^\"]*\)\".*/\1/p"
}

id=$(order 1 | member id)
echo "ordered ${id:?the order was refused}"
test "$(order 1 | member id)" = "$id"
echo "repeated: the same order"
stock=$(grpcurl -plaintext -d '{"item":"widget"}' "$inventory" inventory.v1.InventoryService/GetStock | member stock)
echo "in stock: ${stock:?it cannot be read}"
reason=$(order 1000000 2>&1 | member reason)
echo "refused: $reason"
test "$reason" = INSUFFICIENT_STOCK
