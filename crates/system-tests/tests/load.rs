//! `load`, as a process: against a running system, and against servers that answer what nobody should be told.
#![expect(clippy::disallowed_methods, reason = "tests run in the real world")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use servers::Port;
use system_tests::{
    System,
    system::{binary, signal},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

/// Longer than any run here takes, of which those that fail wait 10 s for an answer.
const RUN_MAX: Duration = Duration::from_secs(40);

fn start(settings: &[(&str, &str)]) -> Child {
    let mut command = Command::new(binary("load"));
    command.env_clear().envs(settings.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
}

/// Exit code, what was printed, and what was said meanwhile.
async fn end(child: Child) -> (i32, Value, String) {
    let output = tokio::time::timeout(RUN_MAX, child.wait_with_output()).await.expect("it ends").expect("a status");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let (printed, said) = (text(output.stdout), text(output.stderr));
    assert_eq!(printed.lines().count(), 1, "{printed}\n{said}");
    (output.status.code().expect("no signal"), serde_json::from_str(&printed).expect("JSON"), said)
}

async fn run(settings: &[(&str, &str)]) -> (i32, Value, String) {
    end(start(settings)).await
}

#[tokio::test]
async fn it_orders_repeats_and_counts_what_the_system_counts() {
    let system = System::start(&[("DEFAULT_STOCK", "20")]).await;
    let url = system.url("HTTP");
    let settings = [("TARGET_URL", url.as_str()), ("LOAD_SECONDS", "2"), ("LOAD_CLIENTS", "4")];
    let (code, figures, said) = run(&settings).await;
    assert_eq!(code, 0, "{figures} {said}");
    let count = |name: &str| figures[name].as_u64().unwrap_or_else(|| panic!("{name} in {figures}"));
    let orders = count("orders");
    assert!(orders > 0 && orders == system.count("orders_created_total").await, "{figures}");
    // Each client sells an item out, then takes its next.
    assert!((orders / 20).abs_diff(count("refused")) <= 4, "{figures}");
    assert!(count("refused") > 0, "{figures}");
    assert_eq!(count("failed"), 0, "{figures}");
    let first = figures["by_first_status"].as_object().expect("an object");
    let answered: u64 = first.values().filter_map(Value::as_u64).sum();
    assert_eq!(answered, orders + count("refused"), "{figures}");
    assert!(first["201"].as_u64() > Some(0) && first["409"].as_u64() > Some(0), "{figures}");
    let figure = |name: &str| figures[name].as_f64().unwrap_or_else(|| panic!("{name} in {figures}"));
    assert!((1.9..4.0).contains(&figure("seconds")), "{figures}");
    assert!((figure("orders_per_second") * figure("seconds") / figure("orders") - 1.0).abs() < 0.1, "{figures}");
    assert!(figure("p50_ms") > 0.0 && figure("p50_ms") <= figure("p99_ms"), "{figures}");
    assert!(figure("p99_ms") <= figure("max_ms") + 0.1, "{figures}");
    assert!(figure("longest_gap_ms") > 0.0, "{figures}");
    assert!(said.lines().next().is_some_and(|line| line.starts_with("1 s: ")), "{said}");
}

#[tokio::test]
async fn a_signal_ends_it_early_and_it_still_prints() {
    let system = System::start(&[]).await;
    let url = system.url("HTTP");
    let mut child = start(&[("TARGET_URL", &url), ("LOAD_SECONDS", "86400")]);
    let mut said = BufReader::new(child.stderr.take().expect("piped")).lines();
    let line = tokio::time::timeout(RUN_MAX, said.next_line()).await.expect("in time").expect("UTF-8");
    assert!(line.is_some_and(|line| line.starts_with("1 s: ")));
    signal("TERM", &child.id().expect("it runs").to_string());
    let (code, figures, _) = end(child).await;
    assert!(code == 0 && figures["orders"].as_u64() > Some(0), "{figures}");
}

#[tokio::test]
async fn where_nobody_listens_every_order_fails() {
    let port = Port::claim();
    let url = format!("http://127.0.0.1:{}", port.number());
    let begun = Instant::now();
    let (code, figures, _) = run(&[("TARGET_URL", &url), ("LOAD_SECONDS", "1"), ("LOAD_CLIENTS", "2")]).await;
    assert_eq!((code, &figures["orders"], &figures["failed"]), (1, &0.into(), &2.into()), "{figures}");
    assert_eq!(figures["by_first_status"], serde_json::json!({"lost": 2}));
    assert!(figures["repeated"].as_u64() > Some(20), "{figures}");
    assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn bad_settings_are_listed_at_once() {
    let bad = [("TARGET_URL", "ftp://x"), ("LOAD_CLIENTS", "0"), ("LOAD_SECONDS", "86401")];
    let output = start(&bad).wait_with_output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(said.lines().count() == 3 && bad.iter().all(|(name, _)| said.contains(&format!("{name}: "))), "{said}");
}

/// A request's key and item, or nothing when the client is gone.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let (mut key, mut length, mut line) = (String::new(), 0, String::new());
    while stream.read_line(&mut line).await.ok()? > 2 {
        if let Some((name, value)) = line.trim().split_once(": ") {
            match name.to_lowercase().as_str() {
                "idempotency-key" => value.clone_into(&mut key),
                "content-length" => length = value.parse().expect("a number"),
                _ => {}
            }
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let body: Value = serde_json::from_slice(&body).ok()?;
    Some((key, body["item"].as_str().expect("an item").to_owned()))
}

type Answers = Arc<dyn Fn(usize, &str, &str) -> Option<String> + Send + Sync>;

/// Answers the n-th request as this says, from its key and its item; with nothing it closes the connection.
async fn stub(answers: Answers) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let count = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answers, count) = (Arc::clone(&answers), Arc::clone(&count));
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Some((key, item)) = request(&mut stream).await {
                    let Some(answer) = answers(count.fetch_add(1, Ordering::Relaxed), &key, &item) else { return };
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

fn created(id: &str, item: &str) -> String {
    answer("201 Created", "", &format!(r#"{{"id":"{id}","item":"{item}","quantity":1}}"#))
}

/// One client, for a second, at a server that answers so.
async fn against(
    answers: impl Fn(usize, &str, &str) -> Option<String> + Send + Sync + 'static,
) -> (i32, Value, String) {
    let url = format!("http://{}", stub(Arc::new(answers)).await);
    run(&[("TARGET_URL", &url), ("LOAD_SECONDS", "1"), ("LOAD_CLIENTS", "1")]).await
}

#[tokio::test]
async fn what_is_not_answered_is_asked_again_under_its_key_after_the_wait_that_was_asked_for() {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let (code, figures, said) = against(move |n, key, item| {
        seen.lock().expect("whole").push((Instant::now(), key.to_owned(), item.to_owned()));
        match n {
            0 => Some(answer("503 Service Unavailable", "retry-after: 1\r\n", "{}")),
            1 => Some(answer("504 Gateway Timeout", "", "")),
            2 => None,
            _ => Some(created(key, item)),
        }
    })
    .await;
    assert_eq!(code, 0, "{figures} {said}");
    assert_eq!((&figures["repeated"], &figures["by_first_status"]["503"]), (&3.into(), &1.into()), "{figures}");
    assert!(figures["max_ms"].as_f64() >= Some(1_200.0), "the waits count: {figures}");
    let asked = asked.lock().expect("whole");
    assert!(asked[..4].iter().all(|(_, key, item)| (key, item) == (&asked[0].1, &asked[0].2)), "{asked:?}");
    assert!(asked[1].0 - asked[0].0 >= Duration::from_secs(1), "{asked:?}");
    // It was repeated, so it is asked for once more.
    assert_eq!(asked[4].1, asked[0].1, "{asked:?}");
}

#[tokio::test]
async fn one_key_with_two_orders_is_a_fault() {
    let (code, figures, said) = against(|n, _, item| Some(created(&n.to_string(), item))).await;
    assert!(code == 1 && figures["failed"].as_u64() > Some(0), "{figures}");
    assert!(said.contains("was answered with 0, and then: Placed { id: \"1\" }"), "{said}");
}

#[tokio::test]
async fn an_order_of_something_else_is_a_fault() {
    let (code, figures, said) = against(|_, key, _| Some(created(key, "gadget"))).await;
    assert_eq!((code, &figures["orders"]), (1, &0.into()), "{figures}");
    assert!(figures["failed"].as_u64() > Some(0) && said.contains("gadget"), "{figures} {said}");
}
