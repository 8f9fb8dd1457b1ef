-- hold: the hold of an id on an open item.
-- KEYS[1..7] see prelude
-- ARGV[1] id
-- answers {"hold", epoch, number, quantity, deadline} | {"absent"} | {"not_open", why}
local item = look()
if item.why then return not_open(item.why) end
local hold = hold_of(item, ARGV[1])
if not hold then return { 'absent' } end
if hold.broken then return not_open('hold') end
return { 'hold', item.epoch, hold.number, hold.quantity, hold.deadline }
