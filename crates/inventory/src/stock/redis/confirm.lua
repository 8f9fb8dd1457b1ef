-- confirm: turns the hold of a stamp into a sale, at most once.
-- KEYS[1..8] see prelude
-- ARGV[1] id   ARGV[2] epoch   ARGV[3] number   ARGV[4] life of the marker, milliseconds
-- answers {"confirmed"} | {"already_done"} | {"superseded"} | {"not_open", why}
local item = look()
if item.why then return not_open(item.why) end
local id, epoch, number = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if epoch < item.epoch then return { 'superseded' } end
if epoch > item.epoch then return not_open('epoch') end

local hold = hold_of(item, id)
if hold and hold.broken then return not_open('hold') end
if not hold or hold.number ~= number then return { 'already_done' } end
item.held, item.sold, item.holds = item.held - hold.quantity, item.sold + hold.quantity, item.holds - 1
if not fits(item) then return not_open('numbers') end

-- The first write frees memory, so that a full Redis lets the others follow: holds can be settled there still.
redis.call('HDEL', KEYS[3], id)
redis.call('ZREM', KEYS[4], id)
save(item)
local was = { digits(epoch), digits(hold.quantity), digits(number), digits(hold.deadline) }
redis.call('SET', KEYS[8], 'confirmed:' .. table.concat(was, ':'), 'PX', ARGV[4])
return { 'confirmed' }
