//! What docker-compose.yml promises of every container, as far as the file tells. `just compose-smoke` asks the engine.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{assert_none, members, read, root, yaml};

const COMPOSE: &str = "docker-compose.yml";
/// All that a `.env` has to hold.
const DOTENV: [&str; 7] =
    ["POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB", "BROKER_HOST", "BROKER_PORT", "REDIS_HOST", "DEFAULT_STOCK"];
/// They run, do their work and end.
const ONE_SHOTS: [&str; 4] = ["secrets", "migrate", "grpcurl", "load"];

fn list(value: &Value) -> Vec<&str> {
    value.as_array().map_or(Vec::new(), |list| list.iter().filter_map(Value::as_str).collect())
}

fn names(value: &Value) -> BTreeSet<&str> {
    match value {
        Value::Object(members) => members.keys().map(String::as_str).collect(),
        other => list(other).into_iter().collect(),
    }
}

/// Runs a rule over every service, and lists what breaks it.
fn each(rule: &str, breaks: impl Fn(&str, &Value) -> Option<String>) {
    let compose = yaml(COMPOSE);
    let services = members(&compose["services"], "services");
    let broken: Vec<String> =
        services.filter_map(|(name, service)| Some(format!("{name}: {}", breaks(name, service)?))).collect();
    assert_none(&broken, rule);
}

#[test]
fn every_container_has_the_least_that_it_needs() {
    each("a container may do nothing that it need not do", |name, service| {
        let limits = &service["deploy"]["resources"]["limits"];
        let wanted = [
            ("read_only", service["read_only"] == true),
            ("cap_drop", list(&service["cap_drop"]) == ["ALL"]),
            ("cap_add", service["cap_add"].is_null()),
            ("privileged", service["privileged"].is_null()),
            ("security_opt", list(&service["security_opt"]) == ["no-new-privileges:true"]),
            ("memory and pids", limits["memory"].is_string() && limits["pids"].is_u64()),
            ("logging", service["logging"]["options"]["max-size"].is_string()),
            ("user", name == "secrets" || service["user"] != "root"),
            ("network_mode", service["network_mode"].is_null() || service["network_mode"] == "none"),
            ("stop_grace_period", ONE_SHOTS.contains(&name) || service["stop_grace_period"].is_string()),
            ("restart", service["restart"] == if ONE_SHOTS.contains(&name) { "no" } else { "unless-stopped" }),
        ];
        let missing: Vec<&str> = wanted.iter().filter(|(_, held)| !held).map(|(what, _)| *what).collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    });
}

#[test]
fn only_the_gateway_can_be_reached_from_other_machines() {
    each("publish on loopback, or not at all", |name, service| {
        let open: Vec<&str> =
            list(&service["ports"]).into_iter().filter(|port| !port.starts_with("127.0.0.1:")).collect();
        let wanted: &[&str] = if name == "gateway" { &["8080:8080"] } else { &[] };
        (open != wanted || service["ports"].is_object()).then(|| format!("{open:?}"))
    });
}

#[test]
fn what_publishes_nothing_cannot_reach_the_world() {
    let compose = yaml(COMPOSE);
    let leads_out = |network: &&str| compose["networks"][*network]["internal"] != true;
    each("who publishes no port is in internal networks alone", |_, service| {
        let out: Vec<&str> = names(&service["networks"]).into_iter().filter(|network| leads_out(network)).collect();
        let may = !list(&service["ports"]).is_empty();
        let nowhere = service["networks"].is_null() && service["network_mode"] != "none";
        (nowhere || !(may || out.is_empty())).then(|| format!("{out:?}"))
    });
}

#[test]
fn stores_are_reached_by_those_alone_who_use_them() {
    let compose = yaml(COMPOSE);
    let services = members(&compose["services"], "services");
    let inside = services.filter(|(_, service)| names(&service["networks"]).contains("stores")).map(|(name, _)| name);
    let wanted = ["order-db", "inventory-db", "rabbitmq", "order-service", "inventory-service", "migrate"];
    assert_eq!(inside.collect::<BTreeSet<_>>(), wanted.into_iter().collect());
}

#[test]
fn what_serves_is_known_to_be_healthy() {
    let dockerfile = read("Dockerfile");
    each("a container that serves has a health check, here or in its image", |name, service| {
        let target = service["build"]["target"].as_str();
        let in_image =
            target.is_some_and(|target| dockerfile.contains(&format!("CMD [\"/{target}\", \"healthcheck\"]")));
        let here = !list(&service["healthcheck"]["test"]).is_empty();
        (!ONE_SHOTS.contains(&name) && in_image == here).then(|| format!("in the image: {in_image}, here: {here}"))
    });
}

/// One writes what the other reads: whoever mounts passwords waits until they are made.
#[test]
fn every_secret_is_mounted_once_and_made_before() {
    let compose = yaml(COMPOSE);
    let maker = &compose["services"]["secrets"];
    let made: BTreeSet<String> = list(&maker["volumes"])
        .into_iter()
        .filter_map(|volume| Some(volume.split_once(":/secrets/")?.0.to_owned()))
        .collect();
    let mut read = BTreeSet::new();
    let services = &compose["services"];
    for (name, service) in members(services, "services") {
        for volume in list(&service["volumes"]).into_iter().filter(|volume| volume.contains(":/run/secrets")) {
            assert_eq!(volume, format!("{name}-secrets:/run/secrets:ro"));
            read.insert(format!("{name}-secrets"));
            assert!(waits_for_secrets(services, name), "{name} may start before its secrets are made");
        }
    }
    assert_eq!(made, read);
    let script = self::read("scripts/compose-secrets");
    let folders = read.iter().map(|volume| volume.trim_end_matches("-secrets"));
    let missing: Vec<String> =
        folders.filter(|folder| !script.contains(&format!(" {folder}/"))).map(str::to_owned).collect();
    assert_none(&missing, "the script makes nothing for these");
}

/// Whether it starts when the passwords are made, because that or something else that does is waited for.
fn waits_for_secrets(services: &Value, name: &str) -> bool {
    let mut waited_for = members_or_none(&services[name]["depends_on"]);
    waited_for.any(|(before, _)| before == "secrets" || waits_for_secrets(services, before))
}

#[test]
fn nothing_starts_before_what_it_needs_can_be_used() {
    each("wait until it is healthy, or has ended well", |_, service| {
        let early: Vec<&str> = members_or_none(&service["depends_on"])
            .filter(|(before, how)| {
                let ends = ONE_SHOTS.contains(before);
                how["condition"] != if ends { "service_completed_successfully" } else { "service_healthy" }
            })
            .map(|(before, _)| before)
            .collect();
        (!early.is_empty()).then(|| early.join(", "))
    });
}

#[test]
fn no_password_stands_in_an_environment() {
    each("a secret comes from a file", |name, service| {
        let environment = members_or_none(&service["environment"]);
        let open = environment.filter(|(variable, _)| variable.contains("PASSWORD") && !variable.ends_with("_FILE"));
        // The one that hands `.env`'s password on, and has no network.
        let open: Vec<&str> = open.map(|(variable, _)| variable).filter(|_| name != "secrets").collect();
        (!open.is_empty()).then(|| open.join(", "))
    });
}

fn members_or_none(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

#[test]
fn what_is_mounted_from_here_is_here() {
    each("the repository has no such file", |_, service| {
        let files = list(&service["volumes"]).into_iter().filter_map(|volume| volume.strip_prefix("./"));
        let bad: Vec<&str> = files
            .filter(|volume| {
                let (path, rest) = volume.split_once(':').expect("a place in the container");
                !rest.ends_with(":ro") || !root().join(path).exists()
            })
            .collect();
        (!bad.is_empty()).then(|| bad.join(", "))
    });
}

#[test]
fn a_dotenv_of_seven_lines_is_enough_and_never_committed() {
    let example = read(".env.example");
    let lines = example.lines().filter(|line| !line.starts_with('#'));
    let set: Vec<&str> = lines.map(|line| line.split_once('=').expect("NAME=value").0).collect();
    assert_eq!(set, DOTENV);
    assert!(example.contains("POSTGRES_PASSWORD=change_me\n"));
    assert!(read(".gitignore").lines().any(|line| line == "/.env"), ".env is ignored");
    let text = read(COMPOSE);
    // What has no default must be in .env; REVISION and the like have one.
    let required: BTreeSet<&str> =
        text.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0.split_once(":?")?.0)).collect();
    let missing: Vec<String> =
        required.iter().filter(|name| !DOTENV.contains(name)).map(|name| (*name).to_owned()).collect();
    assert!(required.len() >= 3, "{required:?}");
    assert_none(&missing, "docker-compose.yml asks for what a .env need not have");
}

#[test]
fn no_build_sees_more_than_it_reads() {
    let ignored = read(".dockerignore");
    let mut lines = ignored.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"), ".dockerignore lets nothing in but what it names");
    let named = lines.filter_map(|line| line.strip_prefix('!'));
    let bad = named.filter(|path| path.contains('*') || path.contains(".env") || !root().join(path).exists());
    let bad: Vec<String> = bad.map(str::to_owned).collect();
    assert_none(&bad, "name what the build reads, one by one");
}
