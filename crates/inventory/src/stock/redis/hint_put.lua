-- hint_put: writes which item an id is held on, before the hold is made. It stands alone: an item's keys are in another
-- slot than its ids.
-- KEYS[1] {<id>}:item   hash: item, writer; expires a while after the hold is due
-- ARGV[1] item   ARGV[2] who writes   ARGV[3] time to live, milliseconds
-- answers {"created"} | {"kept"}: it was there, and lasts as long at least | {"elsewhere"}: it names another item
local item = redis.pcall('HGET', KEYS[1], 'item')
if type(item) == 'table' and item.err then
  redis.call('UNLINK', KEYS[1])
  item = false
end
if item and item ~= ARGV[1] then return { 'elsewhere' } end
redis.call('HSET', KEYS[1], 'item', ARGV[1], 'writer', ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return { item and 'kept' or 'created' }
