-- due: the holds of one item that are past their deadline, longest overdue first. One that a hand has touched counts as
-- one unit under number 0, which no settlement takes: so that whoever tries finds out. An item that only a load can open is
-- taken out of the registry.
-- KEYS[1..7] see prelude
-- ARGV[1] most holds
-- answers {"due", epoch, 1 if there may be more, else 0, id, number, quantity, deadline, id, ...}
--   | {"not_open", why, 1 if it was taken out, else 0}
local item = look()
if item.why then return { 'not_open', item.why, unregister(item) } end
local ids = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', digits(now()), 'LIMIT', 0, ARGV[1])
local reply = { 'due', item.epoch, #ids == tonumber(ARGV[1]) and 1 or 0 }
for _, id in ipairs(ids) do
  local hold = hold_of(item, id)
  if hold.broken then hold = { number = 0, quantity = 1, deadline = hold.deadline or 0 } end
  for _, value in ipairs({ id, hold.number, hold.quantity, hold.deadline }) do table.insert(reply, value) end
end
return reply
