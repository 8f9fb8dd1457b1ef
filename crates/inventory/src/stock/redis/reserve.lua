-- reserve: sets units of one item aside, at most once per id.
-- KEYS[1..8] see prelude
-- ARGV[1] id   ARGV[2] quantity   ARGV[3] time to live, microseconds   ARGV[4] least epoch
-- ARGV[5] 1 for a client's hold, which is over at its deadline; 0 for one that a repeat lengthens even then
-- answers {"held" | "confirmed", epoch, number, remaining, deadline} | {"insufficient", remaining} | {"released"}
--   | {"mismatch"} | {"overdue"} | {"not_open", why}
local item = look(tonumber(ARGV[4]))
if item.why then return not_open(item.why) end
local id, quantity = ARGV[1], tonumber(ARGV[2])
local time = now()
local deadline = time + tonumber(ARGV[3])

-- Holds come first: after a clock has jumped back, a marker that was over when the hold was made is alive again.
local hold = hold_of(item, id)
if hold then
  if hold.broken then return not_open('hold') end
  if ARGV[5] == '1' and hold.deadline <= time then return { 'overdue' } end
  if hold.quantity ~= quantity then return { 'mismatch' } end
  if deadline > hold.deadline then
    hold.deadline = deadline
    redis.call('ZADD', KEYS[4], digits(deadline), id)
    save(item)
  end
  return { 'held', item.epoch, hold.number, item.available, hold.deadline }
end

local marker = marker_of(item)
if marker and marker.kind == 'released' then return { 'released' } end
if marker then
  if marker.quantity ~= quantity then return { 'mismatch' } end
  return { 'confirmed', item.epoch, marker.number, item.available, marker.deadline }
end

if item.available < quantity then return { 'insufficient', item.available } end
item.available, item.held = item.available - quantity, item.held + quantity
item.number, item.holds = item.number + 1, item.holds + 1
if not fits(item) then return not_open('numbers') end

local text = digits(quantity) .. ':' .. digits(item.number)
redis.call('HSET', KEYS[3], id, text .. ':' .. text)
redis.call('ZADD', KEYS[4], digits(deadline), id)
save(item)
return { 'held', item.epoch, item.number, item.available, deadline }
