//! Runs the product's scripts as Redis does: one at a time, to their end, nothing taken back.

use std::{borrow::Cow, cell::RefCell, collections::BTreeMap, rc::Rc};

use inventory::stock::redis::scripts::Script;
use mlua::{Function, Lua, LuaOptions, MultiValue, StdLib, Table, Value};
use service::planted::Bug;

use super::{
    commands::{Moment, READ_ONLY, Reply, double, execute},
    data::Keys,
    planted,
};

/// Garbage is collected when there is so much more memory in use than after the last time.
const GC_PAUSE_PERCENT: i32 = 1_000;
/// How a script begins that submits to the rules for scripts which may write.
const SHEBANG: &str = "#!lua\n";

/// The world of the scripts: what they may call, and nothing that one could leave to the next.
const WORLD: &str = "
local call, pcall = ...
local function read_only(fields)
  return setmetatable({}, {
    __index = fields,
    __newindex = function() error('Attempt to modify a readonly table', 2) end,
  })
end
local known = { redis = read_only({ call = call, pcall = pcall }) }
for _, name in ipairs({ 'assert', 'error', 'ipairs', 'next', 'pairs', 'select', 'tonumber', 'tostring', 'type', 'unpack' })
do
  known[name] = _G[name]
end
for _, name in ipairs({ 'math', 'string', 'table' }) do known[name] = read_only(_G[name]) end
setmetatable(known, {
  __index = function(_, name) error(\"Script attempted to access nonexistent global variable '\" .. name .. \"'\", 2) end,
})
return known, read_only(known)
";

thread_local! {
    /// One for all servers that a thread ever simulates: it keeps the compiled scripts and nothing else.
    static MACHINE: Machine = Machine::new().expect("a Lua machine takes only memory");
}

/// A script's run.
pub struct Run<'a> {
    /// What runs.
    pub script: &'static Script,
    /// `KEYS`.
    pub keys: &'a [String],
    /// `ARGV`.
    pub args: &'a [String],
    /// The `master_replid` that the connection found when it was made.
    pub connected_to: &'a str,
}

impl Run<'_> {
    /// Runs it on these keys.
    pub fn on(&self, keys: &mut Keys, moment: &Moment) -> Reply {
        if moment.replica && self.script.text.starts_with(SHEBANG) {
            return Reply::Error(READ_ONLY.to_owned());
        }
        MACHINE.with(|machine| {
            let taken = std::mem::take(keys);
            machine.under_way.replace(Some(UnderWay { keys: taken, moment: moment.clone(), error: None }));
            let result = machine.run(self);
            let under_way = machine.under_way.take().expect("it was put there");
            *keys = under_way.keys;
            result.unwrap_or_else(|error| {
                let text = error.to_string();
                let own = || format!("ERR {}", text.lines().next().unwrap_or_default());
                let error = under_way.error.unwrap_or_else(own);
                Reply::Error(format!("{error} script: {}, on @user_script.", self.script.sha))
            })
        })
    }
}

/// What a script that runs works on.
struct UnderWay {
    keys: Keys,
    moment: Moment,
    /// Of a command that ended the script.
    error: Option<String>,
}

type Shared = Rc<RefCell<Option<UnderWay>>>;

struct Machine {
    lua: Lua,
    /// What the scripts know by name.
    known: Table,
    /// How they see it.
    world: Table,
    under_way: Shared,
    scripts: RefCell<BTreeMap<(Option<Bug>, &'static str), Function>>,
}

impl Machine {
    fn new() -> mlua::Result<Self> {
        let lua = Lua::new_with(StdLib::TABLE | StdLib::STRING | StdLib::MATH, LuaOptions::default())?;
        // Garbage is cheaper than looking for it.
        lua.gc_inc(GC_PAUSE_PERCENT, 0, 0);
        let under_way = Shared::default();
        let shared = Rc::clone(&under_way);
        let pcall =
            lua.create_function(move |lua, words: MultiValue| to_lua(lua, do_command(lua, &shared, &words)?))?;
        let shared = Rc::clone(&under_way);
        let call = lua.create_function(move |lua, words: MultiValue| match do_command(lua, &shared, &words)? {
            Reply::Error(error) => {
                let ended = mlua::Error::runtime(&error);
                if let Some(under_way) = &mut *shared.borrow_mut() {
                    under_way.error = Some(error);
                }
                Err(ended)
            }
            reply => to_lua(lua, reply),
        })?;
        let (known, world) = lua.load(WORLD).call((call, pcall))?;
        Ok(Self { lua, known, world, under_way, scripts: RefCell::default() })
    }

    fn run(&self, run: &Run<'_>) -> mlua::Result<Reply> {
        let function = self.compiled(run.script)?;
        self.known.raw_set("KEYS", self.lua.create_sequence_from(run.keys.iter().map(String::as_str))?)?;
        self.known.raw_set("ARGV", self.lua.create_sequence_from(run.args.iter().map(String::as_str))?)?;
        if planted::bug().is_some() {
            self.known.raw_set(planted::CONNECTED_TO, run.connected_to)?;
        }
        from_lua(function.call(())?)
    }

    fn compiled(&self, script: &'static Script) -> mlua::Result<Function> {
        let name = (planted::bug(), script.sha.as_str());
        if let Some(function) = self.scripts.borrow().get(&name) {
            return Ok(function.clone());
        }
        let text = planted::text(script);
        let text = text.strip_prefix(SHEBANG).map_or(Cow::Borrowed(&*text), |rest| format!("\n{rest}").into());
        let chunk = self.lua.load(&*text).set_name("@user_script").set_environment(self.world.clone());
        let function = chunk.into_function()?;
        self.scripts.borrow_mut().insert(name, function.clone());
        Ok(function)
    }
}

fn do_command(lua: &Lua, under_way: &Shared, words: &MultiValue) -> mlua::Result<Reply> {
    let mut texts = Vec::with_capacity(words.len());
    for word in words {
        texts.push(match word {
            Value::String(text) => text.clone(),
            // Not as Lua would write them: that rounds.
            #[expect(clippy::cast_precision_loss, reason = "it is a number of Lua's, which are floating-point")]
            Value::Integer(number) => lua.create_string(double(*number as f64))?,
            Value::Number(number) => lua.create_string(double(*number))?,
            _ => return Ok(Reply::Error("ERR Lua redis lib command arguments must be strings or integers".into())),
        });
    }
    let texts: Vec<_> = texts.iter().map(mlua::String::as_bytes).collect();
    let words: Vec<&[u8]> = texts.iter().map(|text| &**text).collect();
    let mut under_way = under_way.borrow_mut();
    let UnderWay { keys, moment, .. } = under_way.as_mut().expect("only a script calls");
    Ok(execute(keys, moment, &words))
}

fn to_lua(lua: &Lua, reply: Reply) -> mlua::Result<Value> {
    let named = |name: &str, text: &str| {
        let table = lua.create_table()?;
        table.raw_set(name, text)?;
        Ok(Value::Table(table))
    };
    match reply {
        Reply::Nil => Ok(Value::Boolean(false)),
        Reply::Integer(number) => Ok(Value::Integer(number)),
        Reply::Bulk(bytes) => lua.create_string(bytes).map(Value::String),
        Reply::Status(status) => named("ok", &status),
        Reply::Error(error) => named("err", &error),
        Reply::Array(replies) => {
            let values: mlua::Result<Vec<Value>> = replies.into_iter().map(|reply| to_lua(lua, reply)).collect();
            lua.create_sequence_from(values?).map(Value::Table)
        }
    }
}

fn from_lua(value: Value) -> mlua::Result<Reply> {
    Ok(match value {
        Value::Integer(number) => Reply::Integer(number),
        #[expect(clippy::cast_possible_truncation, reason = "as Redis does it")]
        Value::Number(number) => Reply::Integer(number as i64),
        Value::String(text) => Reply::Bulk((&*text.as_bytes()).into()),
        Value::Boolean(true) => Reply::Integer(1),
        Value::Table(table) => {
            if let Some(error) = table.raw_get::<Option<String>>("err")? {
                return Ok(Reply::Error(error));
            }
            if let Some(status) = table.raw_get::<Option<String>>("ok")? {
                return Ok(Reply::Status(status.into()));
            }
            // Up to the first gap.
            let values: mlua::Result<Vec<Value>> = table.sequence_values().collect();
            Reply::Array(values?.into_iter().map(from_lua).collect::<mlua::Result<_>>()?)
        }
        _ => Reply::Nil,
    })
}
