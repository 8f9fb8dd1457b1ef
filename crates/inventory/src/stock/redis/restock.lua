-- restock: adds units, at most once per id, if the item's epoch is the one the restock was journalled at.
-- KEYS[1..7] see prelude
-- ARGV[1] id   ARGV[2] quantity   ARGV[3] epoch   ARGV[4] most restocks of a lease
-- answers {"counted", available} | {"not_open", why}
local item = look()
if item.why then return not_open(item.why) end
local id, quantity, epoch = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if epoch > item.epoch then return not_open('epoch') end

if epoch == item.epoch and redis.call('SISMEMBER', KEYS[5], id) == 0 then
  item.received, item.available = item.received + quantity, item.available + quantity
  item.restocks = item.restocks + 1
  if not fits(item) then return not_open('numbers') end
  if item.restocks > tonumber(ARGV[4]) then return not_open('restocks') end
  redis.call('SADD', KEYS[5], id)
  save(item)
end
return { 'counted', item.available }
