-- writable: whether the server of a slot takes writes. Does nothing: a server that takes none refuses it.
-- KEYS[1] any of the slot; not touched
-- answers {"writable"} | an error of the server
return { 'writable' }
