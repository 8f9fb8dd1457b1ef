//! What the repository promises about itself: who may depend on whom, that the documents speak of what exists, and the
//! habits that no other tool checks. Every rule lists all that breaks it.
//!
//! Tables in README.md and ARCHITECTURE.md are found by their first column's title (`variable`, `metric`, `reason`); each
//! name in that column that stands in backticks counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use contracts::reason::Reason;

const SOURCE_LINES_MAX: usize = 600;
const FILE_BYTES_MAX: u64 = 500_000;

/// Which member may depend on which others, tests included. The arrows point inward: a service knows another through
/// `contracts` only, and nobody depends on `example`, `fuzz`, `standalone` or `system-tests`.
const ARROWS: [(&str, &[&str]); 14] = [
    ("contracts", &[]),
    ("service", &["contracts"]),
    ("servers", &[]),
    ("broker", &["contracts", "servers", "service"]),
    ("order", &["broker", "contracts", "servers", "service"]),
    ("inventory", &["broker", "contracts", "servers", "service"]),
    ("edge", &["contracts", "service"]),
    ("load", &["service"]),
    ("example", &["contracts"]),
    ("fuzz", &["broker", "contracts", "edge", "inventory", "order", "service"]),
    ("simulation", &["broker", "contracts", "inventory", "order", "servers", "service"]),
    ("chaos", &["contracts", "servers", "service"]),
    ("standalone", &["broker", "contracts", "edge", "inventory", "order", "service"]),
    ("system-tests", &["broker", "contracts", "inventory", "order", "servers", "service"]),
];

/// Clients of stores and brokers.
const STORE_CLIENTS: [&str; 3] = ["sqlx", "deadpool_redis", "lapin"];

/// The adapters: the only sources that may name a store client.
const ADAPTERS: [&str; 7] = [
    "crates/order/src/ledger/",
    "crates/inventory/src/stock/",
    "crates/simulation/src/redis",
    "crates/broker/src/in_process.rs",
    "crates/broker/src/in_process/",
    "crates/broker/src/rabbitmq.rs",
    "crates/broker/src/rabbitmq/",
];

fn root() -> PathBuf {
    // Read at run time, so that a test binary can be pointed at a broken copy of the repository.
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here).join("../..").canonicalize().expect("the workspace's root exists")
}

/// Standard output of a command run in the root.
fn output(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program).args(arguments).current_dir(root()).output();
    let out = out.unwrap_or_else(|error| panic!("{program} does not run: {error}"));
    assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("the output is UTF-8")
}

/// Every file that belongs to the repository, committed or about to be, as a path from the root.
fn files() -> Vec<String> {
    let listed = output("git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let existing = listed.split('\0').filter(|path| !path.is_empty() && root().join(path).is_file());
    let files: Vec<String> = existing.map(str::to_owned).collect();
    assert!(files.len() > 20, "this cannot be the whole repository: {files:?}");
    files
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path} must be there as UTF-8 text: {error}"))
}

/// Path and text of every file whose path ends with one of these.
fn texts(endings: &[&str]) -> Vec<(String, String)> {
    let chosen = files().into_iter().filter(|path| endings.iter().any(|ending| path.ends_with(ending)));
    chosen.map(|path| (path.clone(), read(&path))).collect()
}

/// Path and text of the product's sources: no tests, neither of `tests/` nor of `#[cfg(test)]` modules.
fn product_sources() -> Vec<(String, String)> {
    let mut sources = texts(&[".rs"]);
    sources.retain(|(path, _)| {
        let tests = ["crates/chaos/", "crates/system-tests/", "crates/servers/"];
        path.contains("/src/") && !path.ends_with("/tests.rs") && !tests.iter().any(|tests| path.starts_with(tests))
    });
    for (_, text) in &mut sources {
        if let Some(end) = text.find("#[cfg(test)]") {
            text.truncate(end);
        }
    }
    assert!(!sources.is_empty(), "no product sources found");
    sources
}

fn assert_none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Lines of the Rust files that `breaks` picks, as `path:line: text`.
fn rust_lines(breaks: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in texts(&[".rs"]) {
        let lines = text.lines().enumerate().filter(|(_, line)| breaks(line));
        found.extend(lines.map(|(index, line)| format!("{path}:{}: {}", index + 1, line.trim())));
    }
    found
}

/// The first words of `text`'s backticked pieces: `` `A_B` and `c d` `` gives `A_B` and `c`. A label set is cut off.
fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter_map(|piece| piece.split([' ', '{', '=']).next())
}

/// The names in the first column of every table with that title.
fn documented(document: &str, title: &str) -> BTreeSet<String> {
    let text = read(document);
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in text.lines() {
        let first = line.strip_prefix('|').and_then(|row| row.split('|').next());
        match first.map(str::trim) {
            None => inside = false,
            Some(cell) if cell.eq_ignore_ascii_case(title) => inside = true,
            Some(cell) if inside => names.extend(backticked(cell).map(str::to_owned)),
            Some(_) => {}
        }
    }
    names
}

/// The whole strings among a source's literals.
fn literals(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).filter(|piece| !piece.contains(['\n', ' ']))
}

/// `A_NAME`, as environment variables and reasons are written.
fn is_upper_snake(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    name.contains('_') && name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(allowed)
}

/// The names of the metrics that the product registers, without the unit and the `_total` that they are shown with.
fn registered_metrics() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, text) in product_sources() {
        for call in ["registry.register(", "registry.register_with_unit("] {
            for rest in text.split(call).skip(1) {
                let literal = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'));
                let (name, _) = literal.unwrap_or_else(|| panic!("{path}: {call} takes the name as a literal"));
                found.insert(name.to_owned());
            }
        }
    }
    assert!(!found.is_empty(), "no metric found in the code");
    found
}

/// A member as `cargo metadata` tells it.
struct Member {
    name: String,
    manifest: String,
    dependencies: BTreeSet<String>,
    /// Those that its product is built with, not only its tests.
    product_dependencies: BTreeSet<String>,
}

fn members() -> Vec<Member> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let metadata = output(&cargo, &["metadata", "--offline", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("cargo metadata is JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
    let list = |value: &serde_json::Value| value.as_array().expect("a list").clone();
    let members = list(&metadata["packages"]).into_iter().map(|package| Member {
        name: text(&package["name"]),
        manifest: text(&package["manifest_path"]),
        dependencies: list(&package["dependencies"]).iter().map(|one| text(&one["name"])).collect(),
        product_dependencies: list(&package["dependencies"])
            .iter()
            .filter(|one| one["kind"] != "dev")
            .map(|one| text(&one["name"]))
            .collect(),
    });
    members.collect()
}

#[test]
fn members_depend_on_each_other_only_along_the_allowed_arrows() {
    let allowed = BTreeMap::from(ARROWS);
    let members = members();
    let names: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, allowed.keys().copied().collect(), "the members (left) and those that ARROWS speaks of (right)");
    let mut broken = Vec::new();
    for member in &members {
        let inner = member.dependencies.iter().filter(|name| names.contains(name.as_str()));
        let wrong = inner.filter(|name| !allowed[member.name.as_str()].contains(&name.as_str()));
        broken.extend(wrong.map(|name| format!("{} -> {name}", member.name)));
    }
    assert_none(&broken, "these members must not depend on each other");
}

#[test]
fn only_tests_start_servers() {
    let members = members();
    let users = members.iter().filter(|member| member.product_dependencies.contains("servers"));
    assert_eq!(users.map(|member| member.name.as_str()).collect::<Vec<_>>(), ["chaos", "system-tests"]);
}

#[test]
fn only_adapters_know_a_store() {
    let mut broken = Vec::new();
    for (path, text) in product_sources() {
        if ADAPTERS.iter().any(|adapter| path.starts_with(adapter)) {
            continue;
        }
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            if STORE_CLIENTS.iter().any(|client| line.contains(&format!("{client}::"))) {
                broken.push(format!("{path}: {}", line.trim()));
            }
        }
    }
    assert_none(&broken, "domain, use cases, ports and handlers must not name a store client");
}

#[test]
fn members_take_every_dependency_from_the_root() {
    let mut broken = Vec::new();
    for member in members() {
        let manifest = fs::read_to_string(&member.manifest).expect("the manifest is there");
        let mut inside = false;
        for line in manifest.lines().map(str::trim) {
            if line.starts_with('[') {
                inside = line.ends_with("dependencies]");
                if line.contains("dependencies.") {
                    broken.push(format!("{}: {line}", member.name));
                }
            } else if inside && !line.is_empty() && !line.starts_with('#') && !line.ends_with(".workspace = true") {
                broken.push(format!("{}: {line}", member.name));
            }
        }
        if !manifest.contains("[lints]\nworkspace = true\n") {
            broken.push(format!("{}: it does not take the workspace's lints", member.name));
        }
    }
    assert_none(&broken, "versions and features stand in the root's Cargo.toml: write `name.workspace = true`");
}

/// The Justfile's recipes, each with what it depends on.
fn recipes() -> BTreeMap<String, Vec<String>> {
    let mut recipes = BTreeMap::new();
    for line in read("Justfile").lines() {
        let Some((head, tail)) = line.split_once(':') else { continue };
        let name = head.split(' ').next().unwrap_or_default();
        let is_name =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if is_name && !tail.starts_with('=') {
            recipes.insert(name.to_owned(), tail.split_whitespace().map(str::to_owned).collect());
        }
    }
    recipes
}

#[test]
fn every_recipe_says_in_a_line_what_it_does() {
    let justfile = read("Justfile");
    let lines: Vec<&str> = justfile.lines().collect();
    let mut broken = Vec::new();
    for name in recipes().into_keys() {
        let is_head = |line: &&str| line.split([' ', ':']).next() == Some(name.as_str()) && line.contains(':');
        let at = lines.iter().position(is_head).expect("recipes() found it");
        let above = lines[..at].iter().rev().find(|line| !line.starts_with('['));
        if !above.is_some_and(|line| line.starts_with("# ")) {
            broken.push(name);
        }
    }
    assert_none(&broken, "these recipes lack a comment, which `just --list` shows");
}

#[test]
fn every_recipe_that_the_documents_show_exists() {
    let recipes = recipes();
    let mut shown = BTreeSet::new();
    for document in ["README.md", "CONTRIBUTING.md"] {
        let text = read(document);
        for command in ["./justw ", "`just ", "\njust "] {
            let words = text.split(command).skip(1).filter_map(|rest| rest.split([' ', '`', '\n', '|']).next());
            let names = words.filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
            shown.extend(names.map(|name| (document, name.to_owned())));
        }
    }
    assert!(shown.contains(&("README.md", "up".into())), "README.md shows `./justw up`: {shown:?}");
    assert!(shown.contains(&("README.md", "ci".into())), "README.md shows `./justw ci`: {shown:?}");
    let broken = shown.into_iter().filter(|(_, recipe)| !recipes.contains_key(recipe));
    let broken: Vec<String> = broken.map(|(document, recipe)| format!("{document}: {recipe}")).collect();
    assert_none(&broken, "the Justfile has no such recipe");
}

#[test]
fn every_setting_is_documented_and_every_documented_setting_is_read() {
    let reasons: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    let mut read = BTreeSet::new();
    for (_, text) in product_sources().into_iter().filter(|(_, text)| text.contains("Settings")) {
        let is_setting = |name: &&str| (is_upper_snake(name) && !name.starts_with("CARGO_")) || *name == "MIGRATE";
        let names = literals(&text).filter(is_setting);
        let names = names.filter(|name| !reasons.contains(name));
        read.extend(names.map(str::to_owned));
    }
    assert_eq!(
        documented("README.md", "variable"),
        read,
        "README.md's settings (left) and those the code reads (right)"
    );
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let in_code = registered_metrics();
    let mut in_documents = documented("README.md", "metric");
    in_documents.extend(documented("ARCHITECTURE.md", "metric"));
    // A unit and a counter's `_total` are added when the metric is shown.
    let endings = ["", "_total", "_seconds", "_bytes", "_seconds_total", "_bytes_total"];
    let shown_as = |name: &str, shown: &str| shown.strip_prefix(name).is_some_and(|end| endings.contains(&end));
    let hidden = in_code.iter().filter(|name| !in_documents.iter().any(|shown| shown_as(name, shown)));
    let mut broken: Vec<String> = hidden.map(|name| format!("{name} is in the code only")).collect();
    let invented = in_documents.iter().filter(|shown| !in_code.iter().any(|name| shown_as(name, shown)));
    broken.extend(invented.map(|shown| format!("{shown} is in the documents only")));
    assert_none(&broken, "the metrics of the code and those of the documents' tables differ");
}

#[test]
fn every_reason_is_documented_and_every_documented_reason_exists() {
    let in_code: BTreeSet<String> = Reason::ALL.iter().map(|reason| reason.name().to_owned()).collect();
    assert_eq!(
        documented("ARCHITECTURE.md", "reason"),
        in_code,
        "ARCHITECTURE.md's reasons (left), the code's (right)"
    );
}

#[test]
fn no_rust_file_holds_what_must_not_be_committed() {
    // Written in two halves, or this file would break its own rule.
    let banned = [
        concat!("#[", "allow("),
        concat!("#![", "allow("),
        concat!("#[", "ignore"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
    ];
    // The process that a test starts and kills is such a test too: it is run, though not by the runner.
    let started = concat!("#[", "ignore = \"started by");
    let broken = rust_lines(|line| banned.iter().any(|banned| line.contains(banned)) && !line.contains(started));
    assert_none(&broken, "use #[expect(lint, reason)], finish the work, and let no test be skipped");
}

#[test]
fn every_select_is_biased() {
    let mut broken = Vec::new();
    let select = concat!("select", "! {");
    for (path, text) in texts(&[".rs"]) {
        for (at, found) in text.match_indices(select) {
            if !text[at + found.len()..].trim_start().starts_with("biased;") {
                broken.push(format!("{path}:{}", text[..at].lines().count()));
            }
        }
    }
    assert_none(&broken, "a select without `biased;` takes its branches in random order, which no seed can repeat");
}

#[test]
fn module_files_are_named_after_their_module() {
    let broken: Vec<String> = files().into_iter().filter(|path| path.ends_with("/mod.rs")).collect();
    assert_none(&broken, "write foo.rs beside foo/");
}

#[test]
fn sources_are_short_and_files_small() {
    let mut broken = Vec::new();
    for (path, text) in texts(&[".rs", ".sql", ".lua", ".proto", ".sh", ".py", ".ts"]) {
        let lines = text.lines().count();
        if lines > SOURCE_LINES_MAX {
            broken.push(format!("{path} has {lines} lines, more than {SOURCE_LINES_MAX}"));
        }
    }
    for path in files() {
        let bytes = fs::metadata(root().join(&path)).expect("the file is there").len();
        if bytes > FILE_BYTES_MAX {
            broken.push(format!("{path} has {bytes} bytes, more than {FILE_BYTES_MAX}"));
        }
    }
    assert_none(&broken, "too big");
}

#[test]
fn npm_packages_are_held_by_their_hashes_run_no_code_when_installed_and_name_no_registry() {
    let mut broken = Vec::new();
    let locks = texts(&["package-lock.json"]);
    assert!(!locks.is_empty(), "no lock file found");
    for (path, text) in &locks {
        let lock: serde_json::Value = serde_json::from_str(text).expect("a lock file is JSON");
        let packages = lock["packages"].as_object().expect("it lists packages");
        for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
            if package.get("resolved").is_some() || package.get("integrity").is_none() {
                broken.push(format!("{path}: {name}"));
            }
        }
        let settings = read(&path.replace("package-lock.json", ".npmrc"));
        if !settings.contains("ignore-scripts=true\nomit-lockfile-registry-resolved=true\n") {
            broken.push(format!("{path}: what is in the .npmrc beside it"));
        }
    }
    assert_none(&broken, "a package has `integrity` and no `resolved`, and runs no scripts");
}

#[test]
fn text_files_end_with_one_newline_and_no_line_ends_with_a_blank() {
    let mut broken = Vec::new();
    for path in files() {
        let bytes = fs::read(root().join(&path)).expect("the file is there");
        let Ok(text) = String::from_utf8(bytes) else { continue };
        if text.contains('\0') || text.is_empty() {
            continue;
        }
        if !text.ends_with('\n') || text.ends_with("\n\n") {
            broken.push(format!("{path}: it does not end with one newline"));
        }
        let blanks = text.split('\n').enumerate().filter(|(_, line)| line.ends_with([' ', '\t', '\r']));
        broken.extend(blanks.map(|(index, _)| format!("{path}:{}: a blank at the end", index + 1)));
    }
    assert_none(&broken, "untidy text");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in texts(&[".md"]) {
        let file = root().join(&path);
        let folder = file.parent().expect("a file has a folder");
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', ' ', '\n']).next().unwrap_or_default();
            let linked = target.split('#').next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !linked.is_empty() && !folder.join(linked).exists() {
                broken.push(format!("{path}: {target}"));
            }
        }
    }
    assert_none(&broken, "no such file");
}

#[test]
fn every_failure_window_names_a_test_that_exists() {
    let tests: String = texts(&[".rs"]).into_iter().map(|(_, text)| text).collect();
    let architecture = read("ARCHITECTURE.md");
    let rows = architecture.lines().skip_while(|line| !line.starts_with("| failure |")).skip(2);
    let rows: Vec<&str> = rows.take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() >= 20, "the table of failure windows has {} rows", rows.len());
    let mut broken = Vec::new();
    for row in rows {
        let shown_by = row.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap_or_default();
        let missing = |name: &&str| !tests.contains(&format!("fn {name}("));
        if backticked(shown_by).next().is_none() {
            broken.push(format!("{row}: names none"));
        }
        broken.extend(backticked(shown_by).filter(missing).map(str::to_owned));
    }
    assert_none(&broken, "these tests of failure windows do not exist");
}
