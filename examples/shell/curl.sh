#!/bin/sh
# Places an order over HTTP with curl. Usage: curl.sh [http://HOST:PORT of the edge]
set -eu
edge=${1:-http://127.0.0.1:8080}
key=$(cat /proc/sys/kernel/random/uuid) # new for each order, the same for its repeats

# order QUANTITY: asks for so many widgets.
order() {
    curl -sS "$edge/orders" -H 'Content-Type: application/json' -H "Idempotency-Key: $key-$1" \
        -d "{\"item\":\"widget\",\"quantity\":$1}"
}
# member NAME: the value of the JSON member, without its quotes.
member() {
    sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"
}

id=$(order 1 | member id)
echo "ordered ${id:?the order was refused}"
test "$(order 1 | member id)" = "$id"
echo "repeated: the same order"
stock=$(curl -sS "$edge/inventory/widget" | member stock)
echo "in stock: ${stock:?it cannot be read}"
reason=$(order 1000000 | member reason)
echo "refused: $reason"
test "$reason" = INSUFFICIENT_STOCK
