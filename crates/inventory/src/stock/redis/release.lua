-- release: gives the units of the hold of a stamp back, at most once; with a marker the id is refused from now on.
-- KEYS[1..8] see prelude
-- ARGV[1] id   ARGV[2] epoch   ARGV[3] number, 0 for no hold   ARGV[4] life of the marker, milliseconds; 0 for none
-- answers {"released"} | {"absent"} | {"superseded"} | {"not_open", why}
local item = look()
if item.why then return not_open(item.why) end
local id, epoch, number, marker_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if number ~= 0 and epoch ~= item.epoch then return { 'superseded' } end

local hold = hold_of(item, id)
if hold and hold.broken then return not_open('hold') end
-- Nobody asked for a verdict on a hold of another number. It stays, and a marker would hide it.
if hold and hold.number ~= number then return { 'absent' } end
-- What was confirmed is an order: its reserve is to find it.
local before = marker_of(item)
local marked = marker_ms > 0 and not (before and before.kind == 'confirmed')

if hold then
  item.held, item.available, item.holds = item.held - hold.quantity, item.available + hold.quantity, item.holds - 1
  if not fits(item) then return not_open('numbers') end
  -- As in confirm: the first write frees memory.
  redis.call('HDEL', KEYS[3], id)
  redis.call('ZREM', KEYS[4], id)
  save(item)
end
if marked then redis.call('SET', KEYS[8], 'released:' .. digits(item.epoch), 'PX', digits(marker_ms)) end
return { hold and 'released' or 'absent' }
