//! Which jobs of the workflow run, by GitHub's rules: a job whose `if:` does not ask how the jobs before went runs only if
//! all of them succeeded, the distant ones too. Tried in every event, with every job before green, red, skipped or
//! cancelled.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value as Yaml;

use crate::{
    WORKFLOW,
    expression::{Facts, Value, evaluate},
    jobs, steps, yaml,
};

const RESULTS: [&str; 4] = ["success", "failure", "skipped", "cancelled"];

/// The jobs that are no tests; every other one is, and gates all that is built.
const NO_TESTS: [&str; 4] = ["advisories", "images", "green", "publish"];

/// What the outside decides.
struct Event {
    title: &'static str,
    facts: BTreeMap<&'static str, Value>,
    publishes: bool,
}

impl Event {
    fn new(title: &'static str, kind: &str, on: &str, is_fork: Value, head_is_fork: Value, publishes: bool) -> Self {
        let facts = BTreeMap::from([
            ("github.event_name", Value::text(kind)),
            ("github.ref", Value::text(on)),
            ("github.event.repository.fork", is_fork),
            ("github.event.pull_request.head.repo.fork", head_is_fork),
        ]);
        Self { title, facts, publishes }
    }

    fn all() -> Vec<Self> {
        let (no, yes, none) = (|| Value::Bool(false), || Value::Bool(true), || Value::Null);
        vec![
            Self::new("a push to main", "push", "refs/heads/main", no(), none(), true),
            Self::new("a release", "push", "refs/tags/v1.2.3", no(), none(), true),
            Self::new("another tag", "push", "refs/tags/nightly", no(), none(), false),
            Self::new("a push to a branch", "push", "refs/heads/topic", no(), none(), false),
            Self::new("a branch named like a tag", "push", "refs/heads/v1.2.3", no(), none(), false),
            Self::new("a branch named like main", "push", "refs/heads/topic/main", no(), none(), false),
            Self::new("a pull request", "pull_request", "refs/pull/1/merge", no(), no(), false),
            Self::new("a pull request from a fork", "pull_request", "refs/pull/1/merge", no(), yes(), false),
            Self::new("a pull request within a fork", "pull_request", "refs/pull/1/merge", yes(), yes(), false),
            Self::new("a push to a fork's main", "push", "refs/heads/main", yes(), none(), false),
            Self::new("a release in a fork", "push", "refs/tags/v1.2.3", yes(), none(), false),
            Self::new("the merge queue", "merge_group", "refs/heads/gh-readonly-queue/main/pr-1", no(), none(), false),
            // Its payload says nothing of the repository.
            Self::new("the weekly run", "schedule", "refs/heads/main", none(), none(), false),
        ]
    }
}

fn needs(job: &Yaml) -> Vec<&str> {
    match &job["needs"] {
        Yaml::Null => Vec::new(),
        Yaml::String(one) => vec![one],
        Yaml::Array(all) => all.iter().map(|one| one.as_str().expect("the name of a job")).collect(),
        other => panic!("`needs` is {other}"),
    }
}

/// The jobs, each after those that it needs, near and far.
struct Graph<'a> {
    jobs: Vec<(&'a str, &'a Yaml)>,
    before: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Graph<'a> {
    fn of(workflow: &'a Yaml) -> Self {
        let mut left = jobs(workflow);
        let mut graph = Self { jobs: Vec::new(), before: BTreeMap::new() };
        while !left.is_empty() {
            let known = |name: &&str| graph.before.contains_key(name);
            let ready = left.iter().find(|(_, job)| needs(job).iter().all(known)).map(|(name, job)| (*name, *job));
            let (name, job) = ready.unwrap_or_else(|| panic!("these need each other or what does not exist: {left:?}"));
            let mut before: BTreeSet<&str> = needs(job).into_iter().collect();
            for near in needs(job) {
                before.extend(&graph.before[near]);
            }
            graph.before.insert(name, before);
            graph.jobs.push((name, job));
            left.remove(name);
        }
        graph
    }

    fn tests(&self) -> BTreeSet<&'a str> {
        let tests: BTreeSet<&str> =
            self.jobs.iter().map(|(name, _)| *name).filter(|name| !NO_TESTS.contains(name)).collect();
        assert!(tests.len() >= 3, "too few tests: {tests:?}");
        tests
    }

    /// The results of the jobs that this one needs, and all results before it.
    fn seen_by(&self, name: &str, results: &Results<'a>) -> (Results<'a>, BTreeSet<&'static str>) {
        let (_, job) = self.jobs.iter().find(|(one, _)| *one == name).expect("a job");
        let near = needs(job).into_iter().map(|name| (name, results[name])).collect();
        let far = self.before[name].iter().map(|name| results[name]).collect();
        (near, far)
    }

    /// Every job's result in this event, where those that run end as told.
    fn run(&self, event: &Event, told: &Results<'a>) -> Results<'a> {
        let mut results = BTreeMap::new();
        for (name, job) in &self.jobs {
            let (near, far) = self.seen_by(name, &results);
            let facts = Facts { names: &event.facts, needs: &near, before: &far };
            let asked_of = |key: &str, unless: &str| {
                let text = job.get(key).map_or_else(
                    || unless.to_owned(),
                    |value| match value {
                        Yaml::String(text) => text.clone(),
                        other => other.to_string(),
                    },
                );
                let (value, asked) = evaluate(&text, &facts).unwrap_or_else(|error| panic!("{name}, {key}: {error}"));
                (value.is_true(), asked)
            };
            let (condition, asked) = asked_of("if", "success()");
            let runs = condition && (asked || far.iter().all(|result| *result == "success"));
            let result = match told.get(name).copied().unwrap_or("success") {
                _ if !runs => "skipped",
                // For those who need it, such a job did not fail.
                "failure" if asked_of("continue-on-error", "false").0 => "success",
                result => result,
            };
            results.insert(*name, result);
        }
        results
    }
}

type Results<'a> = BTreeMap<&'a str, &'static str>;

/// Calls `check` with what is told to the jobs and what came of it, for every event and all that can be told.
fn in_every_case<'a>(graph: &Graph<'a>, mut check: impl FnMut(&Event, &Results<'a>, &Results<'a>)) {
    let told_jobs: Vec<&'a str> =
        graph.jobs.iter().map(|(name, _)| *name).filter(|name| !["green", "publish"].contains(name)).collect();
    let cases = RESULTS.len().pow(u32::try_from(told_jobs.len()).expect("few jobs"));
    assert!((256..100_000).contains(&cases), "{cases} cases of {told_jobs:?}");
    for event in Event::all() {
        for case in 0..cases {
            let mut rest = case;
            let mut told = Results::new();
            for name in &told_jobs {
                told.insert(*name, RESULTS[rest % RESULTS.len()]);
                rest /= RESULTS.len();
            }
            check(&event, &told, &graph.run(&event, &told));
        }
    }
}

fn all_green(names: &BTreeSet<&str>, told: &Results) -> bool {
    names.iter().all(|name| told[name] == "success")
}

#[test]
fn images_are_built_exactly_when_every_test_is_green() {
    let workflow = yaml(WORKFLOW);
    let graph = Graph::of(&workflow);
    let tests = graph.tests();
    in_every_case(&graph, |event, told, results| {
        if told["images"] == "success" {
            assert_eq!(results["images"] == "success", all_green(&tests, told), "{} with {told:?}", event.title);
        }
    });
}

#[test]
fn publishing_happens_exactly_on_main_and_releases_when_all_before_is_green() {
    let workflow = yaml(WORKFLOW);
    let graph = Graph::of(&workflow);
    let mut gates = graph.tests();
    gates.extend(["images", "advisories"]);
    let mut published = 0;
    in_every_case(&graph, |event, told, results| {
        let wanted = event.publishes && all_green(&gates, told);
        assert_eq!(results["publish"] == "success", wanted, "{} with {told:?}", event.title);
        published += usize::from(wanted);
    });
    assert_eq!(published, 2, "from main and from a release");
}

#[test]
fn green_passes_exactly_when_every_test_and_the_images_are_green() {
    let workflow = yaml(WORKFLOW);
    let graph = Graph::of(&workflow);
    let mut gates = graph.tests();
    gates.insert("images");
    let job = jobs(&workflow)["green"];
    let [step] = steps("green", job) else { panic!("`green` has one step") };
    let environment = step["env"]["RESULTS"].as_str().expect("RESULTS");
    let command = step["run"].as_str().expect("a command");
    let mut verdicts = BTreeMap::new();
    in_every_case(&graph, |event, told, results| {
        assert_ne!(results["green"], "skipped", "a required check that is skipped counts as passed");
        let (near, far) = graph.seen_by("green", results);
        let facts = Facts { names: &event.facts, needs: &near, before: &far };
        let (value, _) = evaluate(environment, &facts).unwrap_or_else(|error| panic!("RESULTS: {error}"));
        let value = value.as_text().expect("RESULTS is a text").to_owned();
        let passed = *verdicts.entry(value).or_insert_with_key(|value| {
            let status = Command::new("sh").args(["-e", "-c", command]).env("RESULTS", value).status();
            status.expect("sh runs").success()
        });
        assert_eq!(passed, all_green(&gates, told), "{} with {told:?}", event.title);
    });
}

#[test]
fn an_advisory_shows_in_a_pull_request_and_stops_nothing_but_publishing() {
    let workflow = yaml(WORKFLOW);
    let graph = Graph::of(&workflow);
    let told = Results::from([("advisories", "failure")]);
    for event in Event::all() {
        let results = graph.run(&event, &told);
        assert_eq!((results["images"], results["green"]), ("success", "success"), "{}", event.title);
        assert_eq!(results["publish"], "skipped", "{}", event.title);
        let reviewed = event.title.contains("pull request") || event.title.contains("merge queue");
        assert_eq!(results["advisories"] == "success", reviewed, "{}: is the run red?", event.title);
    }
}
