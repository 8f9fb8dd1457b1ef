//! The pipeline holds what it promises: the workflow and `just ci` run the same checks, tests gate builds, builds gate
//! publishing, nothing unpinned runs, and no secret is where it need not be.
//!
//! - `compose`: what each container may do
//! - `expression`: what a workflow's `if:` says
//! - `graph`: which jobs run, in every event and whatever happened before
//! - `images`: what images are built from and composed of
//! - `scripts`: what `scripts/images` and `scripts/publish` ask of an engine

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

mod compose;
mod expression;
mod graph;
mod images;
mod scripts;

const WORKFLOW: &str = ".github/workflows/ci-cd.yml";
/// What takes too long for every change.
const NIGHTLY: &str = ".github/workflows/nightly.yml";
const WORKFLOWS: [&str; 2] = [WORKFLOW, NIGHTLY];
const JOB_MINUTES_MAX: u64 = 90;
/// Of the job that runs a million seeds.
const SIMULATE_MINUTES_MAX: u64 = 300;

/// What runs on GitHub alone, and so is no recipe: the verdict over the jobs before.
const NO_RECIPES: [(&str, &str); 1] = [("green", "test \"$RESULTS\" = \"success success success success\"")];

/// The actions that may be used: each of them is trusted with what its job may do.
const ACTIONS: [&str; 8] = [
    "Swatinem/rust-cache",
    "actions/attest-build-provenance",
    "actions/cache",
    "actions/checkout",
    "actions/download-artifact",
    "actions/upload-artifact",
    "docker/login-action",
    "docker/setup-buildx-action",
];

fn root() -> PathBuf {
    // Read at run time, so that a test binary can be pointed at a broken copy of the repository.
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here).join("../..").canonicalize().expect("the workspace's root exists")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path} must be there as UTF-8 text: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path} is YAML: {error}"))
}

/// The members of a mapping, which must be one.
fn members<'a>(value: &'a Value, what: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let members = value.as_object().unwrap_or_else(|| panic!("{what} is a mapping, not {value}"));
    members.iter().map(|(name, value)| (name.as_str(), value))
}

fn jobs(workflow: &Value) -> BTreeMap<&str, &Value> {
    let jobs: BTreeMap<&str, &Value> = members(&workflow["jobs"], "jobs").collect();
    assert!(jobs.len() >= 3, "too few jobs: {jobs:?}");
    jobs
}

fn steps<'a>(name: &str, job: &'a Value) -> &'a [Value] {
    job["steps"].as_array().unwrap_or_else(|| panic!("job {name} has steps"))
}

fn assert_none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// The recipes that each job calls, in its order.
fn calls(workflow: &Value) -> BTreeMap<&str, Vec<&str>> {
    let mut calls = BTreeMap::new();
    for (name, job) in jobs(workflow) {
        let commands = steps(name, job).iter().filter_map(|step| step["run"].as_str());
        calls.insert(name, commands.filter_map(|command| command.strip_prefix("./justw ")).collect());
    }
    calls
}

/// The words of the Justfile's line that starts so.
fn listed<'a>(justfile: &'a str, start: &str) -> BTreeSet<&'a str> {
    let line = justfile.lines().find_map(|line| line.strip_prefix(start)).expect("the Justfile has the line");
    let words: BTreeSet<&str> = line.trim_end_matches('"').split(' ').collect();
    assert!(words.len() > 2, "these cannot be all: {words:?}");
    words
}

/// What `ci` depends on, and what the variable `engine` lists.
fn promised(justfile: &str) -> (BTreeSet<&str>, BTreeSet<&str>) {
    (listed(justfile, "ci: "), listed(justfile, "engine := \""))
}

/// What the variable `nightly` lists.
fn nightly(justfile: &str) -> BTreeSet<&str> {
    listed(justfile, "nightly := \"")
}

/// The recipe that the command is: `./justw RECIPE`, in the nightly run also with plain words behind it, as in `./justw
/// RECIPE --minutes 60`.
fn recipe<'a>(command: &'a str, workflow: &str) -> Option<&'a str> {
    let call = command.strip_prefix("./justw ")?;
    let is_name = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " -/".contains(c);
    match call.split_once(' ') {
        None => Some(call).filter(is_name),
        Some((name, words)) if workflow == NIGHTLY && words.chars().all(is_plain) => Some(name).filter(is_name),
        Some(_) => None,
    }
}

#[test]
fn the_workflow_runs_exactly_the_recipes_of_ci_and_engine() {
    let justfile = read("Justfile");
    let (ci, engine) = promised(&justfile);
    let both: Vec<_> = ci.intersection(&engine).collect();
    assert!(both.is_empty(), "these need an engine or the network, or they do not: {both:?}");
    let workflow = yaml(WORKFLOW);
    let calls = calls(&workflow);
    let called: BTreeSet<&str> = calls.values().flatten().copied().collect();
    let promised: BTreeSet<&str> = ci.union(&engine).copied().collect();
    assert_eq!(called, promised, "the workflow's recipes (left), those of `ci` and `engine` (right)");
    let total: usize = calls.values().map(Vec::len).sum();
    assert_eq!(total, called.len(), "a recipe is called twice: {calls:?}");
    // What was not checked is not saved, and nothing else publishes.
    assert_eq!(calls["images"], ["images", "images-check", "compose-smoke", "images-save"]);
    assert_eq!(calls["publish"], ["publish"]);
    assert_eq!(calls["advisories"], ["advisories"]);
    assert!(read(".ci/run").ends_with("exec ./justw ci\n"), ".ci/run runs `./justw ci`");
}

#[test]
fn the_nightly_run_calls_exactly_the_recipes_of_nightly_each_in_a_job_of_its_name() {
    let justfile = read("Justfile");
    let workflow = yaml(NIGHTLY);
    let mut called = BTreeSet::new();
    for (name, job) in jobs(&workflow) {
        let commands = steps(name, job).iter().filter_map(|step| step["run"].as_str());
        let recipes: Vec<_> = commands.filter_map(|command| recipe(command, NIGHTLY)).collect();
        assert_eq!(recipes, [name], "a job calls the recipe of its name");
        assert!(job.get("needs").is_none() && job.get("if").is_none(), "{name}: what fails stops no other");
        called.insert(name);
    }
    assert_eq!(called, nightly(&justfile), "the nightly run's recipes (left), those of `nightly` (right)");
}

#[test]
fn every_listed_recipe_exists_and_so_does_every_script_that_a_recipe_calls() {
    let justfile = read("Justfile");
    let (ci, engine) = promised(&justfile);
    let is_recipe = |name: &str| {
        let mut heads = justfile.lines().filter_map(|line| line.strip_prefix(name));
        heads.any(|rest| rest.starts_with([':', ' ']) && !rest.contains(":="))
    };
    let nightly = nightly(&justfile);
    let listed = ci.iter().chain(&engine).chain(&nightly);
    let mut broken: Vec<String> = listed.filter(|name| !is_recipe(name)).map(ToString::to_string).collect();
    for rest in justfile.split("@scripts/").skip(1) {
        let script = format!("scripts/{}", rest.split([' ', '\n']).next().unwrap_or_default());
        if !root().join(&script).is_file() {
            broken.push(script);
        }
    }
    assert_none(&broken, "these are named in the Justfile and do not exist");
}

#[test]
fn steps_call_recipes_and_nothing_else_and_none_is_optional() {
    let mut broken = Vec::new();
    for path in WORKFLOWS {
        let workflow = yaml(path);
        for (name, job) in jobs(&workflow) {
            broken.extend(steps(name, job).iter().flat_map(|step| wrong_in_step(path, name, step)));
            if job.get("continue-on-error").is_some() && name != "advisories" {
                broken.push(format!("{name}: it may fail"));
            }
        }
        for key in ["defaults", "env"] {
            if workflow.get(key).is_some() {
                broken.push(format!("{path} sets `{key}` for all jobs"));
            }
        }
    }
    assert_none(&broken, "a step is `./justw RECIPE` or an action, and its failure is the job's");
}

fn wrong_in_step(workflow: &str, job: &str, step: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let action = step["uses"].as_str().unwrap_or_default();
    for (key, value) in members(step, "a step") {
        // A private repository of a user cannot have an attestation; what reproduces a failure is kept after one.
        let attests = action.starts_with("actions/attest-") && value == "${{ !github.event.repository.private }}";
        let keeps = workflow == NIGHTLY && action.starts_with("actions/upload-artifact@") && value == "failure()";
        if !(key == "if" && (attests || keeps)) && !["name", "uses", "with", "run", "env"].contains(&key) {
            broken.push(format!("{job}: a step with `{key}`"));
        }
    }
    if let Some(command) = step["run"].as_str()
        && recipe(command, workflow).is_none()
        && !NO_RECIPES.contains(&(job, command))
    {
        broken.push(format!("{job}: {command}"));
    }
    broken
}

#[test]
fn the_workflows_start_for_exactly_these_events() {
    let expected = serde_json::json!({
        "push": {"branches": ["main"], "tags": ["v*"]},
        "pull_request": null,
        "merge_group": null,
        "schedule": [{"cron": "23 4 * * 1"}],
    });
    // Not pull_request_target or workflow_run: they hand secrets to what a stranger wrote.
    assert_eq!(yaml(WORKFLOW)["on"], expected);
    let expected = serde_json::json!({"schedule": [{"cron": "41 2 * * *"}], "workflow_dispatch": null});
    assert_eq!(yaml(NIGHTLY)["on"], expected);
}

#[test]
fn there_is_no_other_workflow() {
    let folder = fs::read_dir(root().join(".github/workflows")).expect("a folder");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name().into_string();
    let mut found: Vec<String> = folder.map(|entry| name(entry).expect("UTF-8")).collect();
    found.sort();
    let known = WORKFLOWS.map(|path| path.rsplit('/').next().expect("a name"));
    assert_eq!(found, known, "the workflows that are there (left), those that these tests look at (right)");
}

#[test]
fn every_action_is_pinned_and_used_with_care() {
    let workflows = WORKFLOWS.map(yaml);
    let text = WORKFLOWS.map(read).concat();
    let mut broken = Vec::new();
    for (name, job) in workflows.iter().flat_map(jobs) {
        for step in steps(name, job) {
            let Some(uses) = step["uses"].as_str() else { continue };
            let (action, revision) = uses.split_once('@').unwrap_or((uses, ""));
            let hexadecimal = revision.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
            let line = text.lines().find(|line| line.contains(uses)).unwrap_or_default();
            let version = line.split_once(" # v").map(|(_, version)| version.split('.').count());
            if revision.len() != 40 || !hexadecimal || version != Some(3) || !ACTIONS.contains(&action) {
                broken.push(format!("{name}: {}", line.trim()));
            }
            if action == "actions/checkout" && step["with"]["persist-credentials"] != false {
                broken.push(format!("{name}: a checkout that leaves its token on disk"));
            }
            let is_cache = ["actions/cache", "Swatinem/rust-cache"].contains(&action);
            if is_cache && step["with"]["lookup-only"] != "${{ startsWith(github.ref, 'refs/tags/') }}" {
                broken.push(format!("{name}: a release takes from the cache"));
            }
            let key = step["with"]["key"].as_str().unwrap_or_default();
            if action == "actions/cache" && !(key.contains("hashFiles('Cargo.lock'") && key.contains("runner.arch")) {
                broken.push(format!("{name}: a cache whose key is {key:?}"));
            }
        }
    }
    assert_none(&broken, "write `uses: one/of-ACTIONS@<40 hexadecimal digits> # v1.2.3`, keep no token, key caches");
}

#[test]
fn every_job_is_bounded_and_may_do_little() {
    let workflows = WORKFLOWS.map(yaml);
    for workflow in &workflows {
        assert_eq!(workflow["permissions"], serde_json::json!({}), "nothing is allowed unless a job says so");
    }
    let may_write: &[&str] = &["packages", "id-token", "attestations"];
    let mut broken = Vec::new();
    for (name, job) in workflows.iter().flat_map(jobs) {
        let minutes = job["timeout-minutes"].as_u64().unwrap_or_default();
        let minutes_max = if name == "simulate" { SIMULATE_MINUTES_MAX } else { JOB_MINUTES_MAX };
        if !(1..=minutes_max).contains(&minutes) {
            broken.push(format!("{name}: timeout-minutes from 1 to {minutes_max}, not {minutes}"));
        }
        if !job["permissions"].is_object() {
            broken.push(format!("{name}: no permissions"));
            continue;
        }
        for (scope, access) in members(&job["permissions"], "permissions") {
            let reads = scope == "contents" && access == "read";
            let writes = name == "publish" && may_write.contains(&scope) && access == "write";
            if !reads && !writes {
                broken.push(format!("{name}: {scope}: {access}"));
            }
        }
        let mut runners = vec![&job["runs-on"]];
        runners.extend(job["strategy"]["matrix"]["include"].as_array().into_iter().flatten().map(|row| &row["runner"]));
        let pinned = ["ubuntu-24.04", "ubuntu-24.04-arm", "${{ matrix.runner }}"];
        if !runners.iter().all(|runner| runner.as_str().is_some_and(|runner| pinned.contains(&runner))) {
            broken.push(format!("{name}: runs on {runners:?}"));
        }
        let text = job.to_string();
        if name != "publish" && (text.contains("secrets") || text.contains("github.token")) {
            broken.push(format!("{name}: it takes a secret"));
        }
    }
    assert_none(&broken, "a job has a time limit, few permissions, a named runner, and no secret unless it publishes");
    let workflow = &workflows[0];
    let publish = &workflow["jobs"]["publish"];
    assert_eq!(publish["environment"], "publish", "the secrets can be kept to the environment");
    assert_eq!(publish["concurrency"]["cancel-in-progress"], false, "half of what is published is never cut off");
    let group = workflow["concurrency"]["group"].as_str().expect("a group");
    assert!(group.contains("github.event_name") && group.contains("github.ref"), "{group}: runs cut each other off");
    let cancels = &workflow["concurrency"]["cancel-in-progress"];
    assert_eq!(cancels, "${{ github.event_name == 'pull_request' }}", "a push to main is not cancelled");
}

#[test]
fn dependabot_watches_every_ecosystem_in_groups_and_waits() {
    let dependabot = yaml(".github/dependabot.yml");
    let updates = dependabot["updates"].as_array().expect("updates is a list");
    let mut watched = BTreeSet::new();
    for update in updates {
        let ecosystem = update["package-ecosystem"].as_str().expect("an ecosystem");
        assert!(update["groups"].is_object(), "{ecosystem}: one pull request, not one for each dependency");
        assert!(update["cooldown"]["default-days"].as_u64() >= Some(7), "{ecosystem}: not on the day of its release");
        watched.insert(ecosystem);
    }
    assert_eq!(watched, BTreeSet::from(["cargo", "docker", "docker-compose", "github-actions", "npm", "pip"]));
}
