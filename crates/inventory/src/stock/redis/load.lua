-- load: opens an item under a lease and forgets all that was known of it. Sent at most once.
-- KEYS[1..7] see prelude
-- ARGV[1] incarnation that was read before the lease was asked for   ARGV[2] epoch   ARGV[3] received   ARGV[4] sold
-- answers {"loaded"} | {"refused", why}
local item = look()
local epoch, received, sold = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if not item.master then return { 'refused', 'replica' } end
if item.incarnation ~= ARGV[1] then return { 'refused', 'incarnation' } end
if epoch <= item.epoch or epoch >= EXACT_MAX then return { 'refused', 'epoch' } end
if sold < 0 or received < sold or received >= EXACT_MAX then return { 'refused', 'numbers' } end
-- A registry that is none is replaced: its items are not open, and their loads come this way.
local registry_is_none = {}
for _, key in ipairs({ KEYS[6], KEYS[7] }) do
  if read('ZCARD', key) == nil then table.insert(registry_is_none, key) end
end

-- The first write is one that a full Redis refuses, so that nothing is deleted in vain.
redis.call('SET', KEYS[1], digits(received - sold))
redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4], KEYS[5], unpack(registry_is_none))
redis.call('HSET', KEYS[2], 'incarnation', item.incarnation, 'epoch', digits(epoch), 'lease', digits(epoch),
  'received', digits(received), 'held', '0', 'sold', digits(sold), 'number', '0', 'holds', '0', 'restocks', '0')
redis.call('ZADD', KEYS[6], '0', KEYS[1])
redis.call('ZREM', KEYS[7], KEYS[1])
return { 'loaded' }
