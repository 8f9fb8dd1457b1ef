//! What `observability/` promises: Prometheus finds every replica of every service, and Grafana's dashboard asks for what
//! the product shows, nothing else and nothing less, in queries that answer.

#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use servers::{Port, Prometheus};
use system_tests::{Client, System};

const CONFIGURATION: &str = "observability/prometheus/prometheus.yml";
const DATA_SOURCE: &str = "observability/grafana/provisioning/datasources/prometheus.yaml";
const PROVIDER: &str = "observability/grafana/provisioning/dashboards/order-system.yaml";
const DASHBOARD: &str = "observability/grafana/dashboards/order-system.json";
/// Where the committed configuration lets Prometheus scrape itself.
const OWN_TARGET: &str = "localhost:9090";
/// What Grafana makes of the variable at its shortest: four scrapes.
const RATE_INTERVAL: &str = "20s";
/// Two scrapes make a rate, and `RATE_INTERVAL` is over soon after; the rest is for a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);
/// Orders are placed this often meanwhile.
const ORDER_PAUSE: Duration = Duration::from_millis(250);

fn read(path: &str) -> String {
    // Looked for at run time, so that a test binary can be pointed at a broken copy of the repository.
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").into());
    let path = Path::new(&here).join("../..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).expect("the dashboard is JSON")
}

/// The panels that show something, and the rows between them if asked for.
fn panels(dashboard: &Value, rows: bool) -> Vec<Value> {
    let outer = dashboard["panels"].as_array().expect("panels");
    let folded = outer.iter().flat_map(|panel| panel["panels"].as_array().into_iter().flatten());
    let all = outer.iter().chain(folded).filter(|panel| rows || panel["type"] != "row");
    let all: Vec<Value> = all.cloned().collect();
    assert!(!all.is_empty(), "the dashboard shows nothing");
    all
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is no string in {value}"))
}

/// A question that the dashboard asks, and the labels that its answer must have: legends and columns are made of them.
struct Query {
    asked_by: String,
    expression: String,
    labels: BTreeSet<String>,
}

/// Those of the panels and those that fill the template variables.
fn queries() -> Vec<Query> {
    let dashboard = dashboard();
    let mut queries = Vec::new();
    for panel in panels(&dashboard, false) {
        let steps = panel["transformations"].as_array().into_iter().flatten();
        let columns =
            steps.filter_map(|step| step["options"]["renameByName"].as_object()).flat_map(|names| names.keys());
        let columns = columns.filter(|name| !name.starts_with("Value #"));
        for target in panel["targets"].as_array().expect("targets") {
            let legend = text(target, "legendFormat").split("{{").skip(1);
            let legend = legend.map(|rest| rest.split("}}").next().unwrap_or_default().to_owned());
            queries.push(Query {
                asked_by: format!("{} {}", text(&panel, "title"), text(target, "refId")),
                expression: text(target, "expr").to_owned(),
                labels: legend.chain(columns.clone().cloned()).collect(),
            });
        }
    }
    for variable in variables(&dashboard) {
        let values = text(&variable["query"], "query").strip_prefix("label_values(");
        let values = values.and_then(|values| values.strip_suffix(')')?.rsplit_once(", "));
        let (expression, label) = values.expect("label_values(what, label)");
        queries.push(Query {
            asked_by: format!("${}", text(&variable, "name")),
            expression: expression.to_owned(),
            labels: BTreeSet::from([label.to_owned()]),
        });
    }
    queries
}

/// What the queries select by labels, one by one. A selection that never finds anything, since a label's name or value is
/// wrong, would be hidden by what the whole query says in its place: that nothing fails.
fn selections(queries: &[Query]) -> Vec<Query> {
    let mut found = BTreeMap::new();
    for query in queries {
        for (at, _) in query.expression.match_indices('{') {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let name = query.expression[..at].rfind(|c| !is_name(c)).map_or(0, |before| before + 1);
            let end = at + query.expression[at..].find('}').expect("closed") + 1;
            found.insert(query.expression[name..end].to_owned(), query.asked_by.clone());
        }
    }
    assert!(!found.is_empty(), "no query selects anything");
    let query = |(expression, asked_by)| Query { asked_by, expression, labels: BTreeSet::new() };
    found.into_iter().map(query).collect()
}

fn variables(dashboard: &Value) -> Vec<Value> {
    dashboard["templating"]["list"].as_array().expect("variables").clone()
}

/// The expression as Grafana sends it while nothing is chosen.
fn substituted(expression: &str, dashboard: &Value) -> String {
    let mut sent = expression.replace("$__rate_interval", RATE_INTERVAL);
    for variable in variables(dashboard) {
        sent = sent.replace(&format!("${}", text(&variable, "name")), text(&variable, "allValue"));
    }
    // What a label is made of by `label_replace` stays.
    assert!(!sent.replace("\"$1\"", "").contains('$'), "an unknown variable in {sent}");
    sent
}

/// The names of the series that an expression selects: what is neither in quotes, braces or brackets, nor a function, an
/// operator, a number or a label.
fn selected(expression: &str) -> BTreeSet<String> {
    let mut bare: String = expression.split('"').step_by(2).collect();
    for (open, close) in [("{", '}'), ("[", ']'), (" by (", ')')] {
        let pieces = bare.split(open).enumerate();
        let kept = pieces.map(|(at, piece)| if at == 0 { piece } else { piece.split_once(close).expect("closed").1 });
        bare = kept.collect();
    }
    let bare = bare.replace(" (", "(");
    let words = bare.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let words = words.filter(|word| !word.ends_with('(')).map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    let names = words.filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()) && *word != "or");
    names.map(str::to_owned).collect()
}

/// The series that a process shows, each with the metric that it belongs to.
async fn served(admin: SocketAddr) -> BTreeMap<String, String> {
    let exposition = String::from_utf8(Client::new(admin).get("/metrics").await.body.to_vec()).expect("UTF-8");
    let mut served = BTreeMap::new();
    let mut metric = String::new();
    for line in exposition.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(rest) => rest.split(' ').next().expect("a name").clone_into(&mut metric),
            None if line.starts_with('#') => {}
            None => {
                let name = line.split(['{', ' ']).next().expect("a name");
                served.insert(name.to_owned(), metric.clone());
            }
        }
    }
    served
}

/// One order that is placed, and one that is refused.
async fn order(system: &System) {
    let answer = system.http.post("/orders", &json!({ "item": "widget", "quantity": 1 })).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let too_many = json!({ "item": "gadget", "quantity": 1_000_000 });
    system.http.post("/orders", &too_many).await.problem(409, "INSUFFICIENT_STOCK");
}

#[tokio::test]
async fn the_dashboard_asks_for_every_metric_of_the_product_and_for_no_other() {
    let system = System::start(&[]).await;
    order(&system).await;
    let served = served(system.addr("admin")).await;
    let mut asked: BTreeSet<String> = queries().iter().flat_map(|query| selected(&query.expression)).collect();
    // Prometheus's own, about each target.
    assert!(asked.remove("up"), "the dashboard shows which replicas are up: {asked:?}");
    let unknown: Vec<&String> = asked.iter().filter(|name| !served.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "no process shows {unknown:?}");
    let shown: BTreeSet<&String> = asked.iter().map(|name| &served[name]).collect();
    let all: BTreeSet<&String> = served.values().collect();
    assert_eq!(shown, all, "the metrics on the dashboard (left) and those of the product (right)");
}

#[test]
fn every_panel_is_explained_has_a_unit_and_asks_the_provisioned_data_source() {
    let dashboard = dashboard();
    let source = json!({ "type": value(DATA_SOURCE, "type"), "uid": value(DATA_SOURCE, "uid") });
    assert_eq!((&dashboard["id"], &dashboard["editable"]), (&Value::Null, &Value::Bool(false)));
    assert!(!text(&dashboard, "uid").is_empty());
    for variable in variables(&dashboard) {
        assert_eq!(variable["datasource"], source, "{variable}");
    }
    let (mut ids, mut titles, mut broken) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for panel in panels(&dashboard, true) {
        let title = text(&panel, "title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: another panel has its id");
        if panel["type"] == "row" {
            continue;
        }
        assert!(titles.insert(title.to_owned()), "two panels are called {title}");
        // A description says what a rise means and where to look next: that takes more than a few words.
        if panel["description"].as_str().is_none_or(|text| text.len() < 80 || !text.ends_with('.')) {
            broken.push(format!("{title}: is not explained"));
        }
        if panel["fieldConfig"]["defaults"]["unit"].as_str().is_none_or(str::is_empty) {
            broken.push(format!("{title}: has no unit"));
        }
        let targets = panel["targets"].as_array().expect("targets");
        if targets.iter().chain([&panel]).any(|asking| asking["datasource"] != source) {
            broken.push(format!("{title}: asks another data source"));
        }
        let references: BTreeSet<&str> = targets.iter().map(|target| text(target, "refId")).collect();
        if targets.is_empty() || references.len() < targets.len() {
            broken.push(format!("{title}: its queries lack a name of their own"));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// What a YAML file says of a key that stands in it once.
fn value(path: &str, key: &str) -> String {
    let text = read(path);
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
    let [only] = lines.collect::<Vec<_>>()[..] else { panic!("{path} says {key} once") };
    only.to_owned()
}

/// What Prometheus scrapes: names of the Compose network and ports.
fn scraped() -> Vec<(String, String)> {
    let configuration = read(CONFIGURATION);
    let jobs = configuration.split("- job_name: ").skip(1).filter(|job| job.contains("dns_sd_configs"));
    let jobs = jobs.map(|job| {
        let (name, rest) = job.split_once('\n').expect("a job of several lines");
        assert!(rest.contains(&format!("names: [{name}], type: A,")), "the job {name} scrapes all replicas of {name}");
        let port = rest.split_once("port: ").and_then(|(_, rest)| rest.split(',').next()).expect("a port");
        (name.to_owned(), port.to_owned())
    });
    jobs.collect()
}

#[test]
fn compose_mounts_what_prometheus_and_grafana_read_and_they_find_each_other_and_the_services() {
    let compose = read("docker-compose.yml");
    let service = |name: &str| compose.contains(&format!("\n  {name}:\n"));
    for (here, there) in [
        (CONFIGURATION, "/etc/prometheus/prometheus.yml"),
        ("observability/grafana/provisioning", "/etc/grafana/provisioning"),
        ("observability/grafana/dashboards", "/etc/grafana/dashboards"),
    ] {
        let mount = format!("- ./{here}:{there}:ro\n");
        assert!(compose.contains(&mount), "docker-compose.yml mounts {mount}");
    }
    assert_eq!(value(PROVIDER, "path"), "/etc/grafana/dashboards");
    assert_eq!(value(DATA_SOURCE, "url"), OWN_TARGET.replace("localhost", "http://prometheus"));
    assert!(service("prometheus"), "docker-compose.yml has the service prometheus");
    let interval = value(CONFIGURATION, "scrape_interval");
    assert_eq!(value(DATA_SOURCE, "timeInterval"), interval, "Grafana's idea of how often Prometheus scrapes");

    let scraped = scraped();
    let names: Vec<&str> = scraped.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["edge", "order-service", "inventory-service"]);
    let dockerfile = read("Dockerfile");
    for (name, port) in &scraped {
        assert!(service(name), "docker-compose.yml has the service {name}");
        let stage = dockerfile.split("\nFROM ").find(|stage| stage.contains(&format!(" AS {name}\n")));
        let stage = stage.unwrap_or_else(|| panic!("the Dockerfile makes the image {name}"));
        let shown = stage.contains(&format!("ADMIN_ADDR=0.0.0.0:{port}\n"));
        assert!(shown, "the image {name} shows its metrics at {port}");
    }
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_configuration() {
    let said = Prometheus::check(&read(CONFIGURATION)).await;
    assert!(said.contains("SUCCESS"), "{said}");
}

/// The committed configuration, whose jobs all scrape these processes instead of what a name server would name.
fn local_configuration(processes: &[&System; 2], own: &Port) -> String {
    let targets = processes.map(|process| format!("'{}'", process.addr("admin")));
    let targets = format!("- {{targets: [{}]}}", targets.join(", "));
    let mut local = read(CONFIGURATION).replace("dns_sd_configs:", "static_configs:");
    for line in local.clone().lines().map(str::trim).filter(|line| line.starts_with("- {names: ")) {
        local = local.replace(line, &targets);
    }
    assert_eq!(local.matches(&targets).count(), scraped().len(), "{local}");
    assert!(local.contains(OWN_TARGET), "Prometheus scrapes itself: {local}");
    local.replace(OWN_TARGET, &format!("127.0.0.1:{}", own.number()))
}

/// A GET of Prometheus's interface; `parameters` are names and values.
async fn asked(prometheus: &Client, path: &str, parameters: &[(&str, &str)]) -> Value {
    let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
    let parameters: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
    let answer = prometheus.get(&format!("/api/v1/{path}?{}", parameters.join("&"))).await;
    let answer = answer.json();
    assert_eq!(answer["status"], "success", "{answer}");
    answer["data"].clone()
}

/// What is wrong with the query's answer, if something is.
async fn fault(prometheus: &Client, query: &Query, dashboard: &Value) -> Option<String> {
    let sent = substituted(&query.expression, dashboard);
    let data = asked(prometheus, "query", &[("query", &sent)]).await;
    let series = data["result"].as_array().expect("a list");
    let is_number = |one: &Value| one["value"][1].as_str().unwrap_or_default().parse().is_ok_and(f64::is_finite);
    if data["resultType"] != "vector" || !series.iter().any(is_number) {
        return Some(format!("{}: no number: {sent}\n  {data}", query.asked_by));
    }
    let lacks = |label: &&String| series.iter().any(|one| one["metric"][label.as_str()].as_str().is_none());
    let lacked: Vec<&String> = query.labels.iter().filter(lacks).collect();
    (!lacked.is_empty()).then(|| format!("{}: an answer without {lacked:?}: {sent}\n  {data}", query.asked_by))
}

#[tokio::test]
async fn every_query_of_the_dashboard_is_answered_by_a_real_prometheus_that_scrapes_real_processes() {
    let nobody = Port::claim();
    let order_url = format!("http://127.0.0.1:{}", nobody.number());
    // One that works, and one that fails, or what asks for failures would find none.
    let works = System::start(&[("DEFAULT_STOCK", "1000")]).await;
    let fails = System::start(&[("ORDER_URL", &order_url)]).await;
    let port = Port::claim();
    let configuration = local_configuration(&[&works, &fails], &port);
    let prometheus = Prometheus::start(port, &configuration).await;
    let client = Client::new(SocketAddr::from(([127, 0, 0, 1], prometheus.port())));
    let (dashboard, mut queries) = (dashboard(), queries());
    queries.extend(selections(&queries));
    let since = Instant::now();
    loop {
        // Under load all the time: a rate needs a rise.
        order(&works).await;
        let answer = fails.http.post("/orders", &json!({ "item": "widget", "quantity": 1 })).await;
        assert!(answer.status.is_server_error(), "{answer:?}");
        let mut faults = Vec::new();
        for query in &queries {
            faults.extend(fault(&client, query, &dashboard).await);
        }
        if faults.is_empty() {
            break;
        }
        assert!(since.elapsed() < ANSWER_LIMIT, "{} of {}:\n{}", faults.len(), queries.len(), faults.join("\n"));
        tokio::time::sleep(ORDER_PAUSE).await;
    }
    let targets = asked(&client, "targets", &[("state", "active")]).await;
    let targets = targets["activeTargets"].as_array().expect("targets");
    let mut health: Vec<_> =
        targets.iter().map(|target| (text(&target["labels"], "job"), text(target, "health"))).collect();
    health.sort_unstable();
    let twice = ["edge", "edge", "inventory-service", "inventory-service", "order-service", "order-service"];
    let all: Vec<_> = twice.into_iter().chain(["prometheus"]).map(|job| (job, "up")).collect();
    assert_eq!(health, all, "{targets:#?}");
}
