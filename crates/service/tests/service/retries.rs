//! Peers that refuse, go away, fall silent or fail, and what is sent again.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use contracts::Reason;
use futures::future::join_all;
use prometheus_client::registry::Registry;
use service::rpc_client::{BUDGET_FLOOR_PER_S, BUDGET_PERCENT, BUDGET_WINDOW_S, Peer, Repeat, RpcClientMetrics};
use tokio::{io::AsyncReadExt, net::TcpListener};

use crate::fixture::{
    Running, env, eventually, listener, measured_peer, peer, soon, start, start_at, stock, stock_repeating,
};

const DEADLINE: Duration = Duration::from_secs(5);

/// A peer and what is counted of it.
fn counted(addrs: &[SocketAddr]) -> (Peer, impl Fn(&str) -> i64 + use<>) {
    let mut registry = Registry::default();
    let metrics = RpcClientMetrics::register(&mut registry);
    let count = move |series: &str| {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {series} in {text}")).parse().expect("a number")
    };
    (measured_peer(addrs, &env(), &metrics), count)
}

fn retries(outcome: &str) -> String {
    format!("rpc_client_retries_total{{peer=\"ledger\",outcome=\"{outcome}\"}}")
}

const DOWN: &str = "rpc_client_addresses_down{peer=\"ledger\"}";

fn seen(running: &Running) -> usize {
    running.ledger.ids.lock().expect("whole").len()
}

/// Takes a connection, reads a request and resets it; counts them.
async fn resetting() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (addr, count) = (listener.local_addr().expect("bound"), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            counted.fetch_add(1, Ordering::SeqCst);
            // Beyond the preface and the settings: a request, which may have been done.
            let mut read = 0;
            while read < 150 {
                match stream.read(&mut [0; 1024]).await {
                    Ok(0) | Err(_) => break,
                    Ok(bytes) => read += bytes,
                }
            }
            stream.set_zero_linger().expect("a socket");
        }
    });
    (addr, count)
}

#[tokio::test]
async fn a_call_that_is_lost_half_way_is_sent_again_if_that_is_safe_and_only_then() {
    let ((resets, connections), running) = (resetting().await, start().await);
    let alone = peer(&[resets], &running.env);
    let failure = stock_repeating(&alone, &running.call(DEADLINE), Repeat::Unsent, "widget").await.expect_err("reset");
    assert_eq!((failure.reason, connections.load(Ordering::SeqCst)), (Reason::Unavailable, 1), "{failure:?}");
    for _ in 0..16 {
        let two = peer(&[resets, running.addr], &running.env);
        let call = running.call(DEADLINE);
        stock(&two, &call, "widget").await.expect("the other answers");
    }
    assert!(connections.load(Ordering::SeqCst) > 1, "it was asked first now and then");
}

#[tokio::test]
async fn a_peer_that_falls_silent_costs_one_wait_and_then_nothing() {
    let (silent, running) = (listener().await, start().await);
    let (peer, count) = counted(&[silent.addr(), running.addr]);
    let ask = async || {
        let begin = Instant::now();
        stock(&peer, &running.call(DEADLINE), "widget").await.expect("the other answers");
        begin.elapsed()
    };
    while count(&retries("slow")) == 0 {
        let took = ask().await;
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    // It is asked for a sign of life meanwhile, and no caller waits for that.
    eventually("it is found out", async || {
        ask().await;
        count(DOWN) == 1
    })
    .await;
    for _ in 0..64 {
        ask().await;
    }
    assert_eq!((count(&retries("slow")), count(&retries("failed"))), (1, 0));
}

#[tokio::test]
async fn a_call_that_takes_long_is_joined_by_one_elsewhere_and_the_first_answer_counts() {
    let both = [start().await, start().await];
    let (peer, count) = counted(&both.each_ref().map(|running| running.addr));
    let (call, asked) = (both[0].call(DEADLINE), Instant::now());
    let ask = async { soon("the answer", stock(&peer, &call, "held")).await.expect("answered") };
    let let_one_go = async {
        for running in &both {
            running.ledger.held.acquire().await.expect("open").forget();
        }
        assert!(asked.elapsed() < DEADLINE, "both are asked");
        both[1].ledger.release.notify_one();
    };
    tokio::join!(ask, let_one_go);
    assert_eq!((seen(&both[0]), seen(&both[1]), count(&retries("slow"))), (1, 1, 1));
    // Both have shown that they live.
    eventually("both are asked again", async || {
        stock(&peer, &call, "widget").await.expect("answered");
        seen(&both[0]) > 1 && seen(&both[1]) > 1
    })
    .await;
    assert_eq!(count(DOWN), 0);
}

#[tokio::test]
async fn what_is_sent_one_at_a_time_has_no_other_beside_it_unless_its_address_is_silent() {
    let both = [start().await, start().await];
    let (peer, _) = counted(&both.each_ref().map(|running| running.addr));
    let call = both[0].call(Duration::from_secs(2));
    stock_repeating(&peer, &call, Repeat::OneAtATime, "slow").await.expect_err("too slow");
    assert_eq!(seen(&both[0]) + seen(&both[1]), 1);

    let silent = listener().await;
    let (peer, count) = counted(&[silent.addr(), both[0].addr]);
    while count(&retries("slow")) == 0 {
        let begin = Instant::now();
        let answer = stock_repeating(&peer, &both[0].call(DEADLINE), Repeat::OneAtATime, "widget").await;
        answer.expect("the other answers");
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    }
    assert_eq!(count(DOWN), 1, "it is found out before");
}

#[tokio::test]
async fn what_a_peer_has_decided_is_not_sent_again() {
    let both = [start().await, start().await];
    let (peer, count) = counted(&both.each_ref().map(|running| running.addr));
    for (item, repeat, reason, times) in [
        ("short", Repeat::Safe, Reason::InsufficientStock, 1),
        ("too much", Repeat::Safe, Reason::Overloaded, 1),
        ("panic", Repeat::Safe, Reason::Internal, 1),
        ("cannot", Repeat::Unsent, Reason::Unavailable, 1),
        ("cannot", Repeat::Safe, Reason::Unavailable, 1),
        ("cannot", Repeat::SafeElsewhere, Reason::Unavailable, 2),
    ] {
        let before = seen(&both[0]) + seen(&both[1]);
        let failure = stock_repeating(&peer, &both[0].call(DEADLINE), repeat, item).await.expect_err("fails");
        let asked = seen(&both[0]) + seen(&both[1]) - before;
        assert_eq!((failure.reason, asked), (reason, times), "{item} {repeat:?}");
    }
    assert!(seen(&both[0]) > 1 && seen(&both[1]) > 1, "elsewhere first");
    assert_eq!(count(&retries("failed")), 1);
}

#[tokio::test]
async fn the_budget_bounds_what_is_sent_again() {
    let both = [start().await, start().await];
    let asked = || seen(&both[0]) + seen(&both[1]);
    let (peer, count) = counted(&both.each_ref().map(|running| running.addr));
    let calls = 200;
    let spare = usize::try_from(u64::from(BUDGET_FLOOR_PER_S) * BUDGET_WINDOW_S).expect("small");
    let most = calls + spare + calls * usize::try_from(BUDGET_PERCENT).expect("small") / 100;
    let call = both[0].call(DEADLINE);
    join_all((0..calls).map(|_| stock_repeating(&peer, &call, Repeat::SafeElsewhere, "cannot"))).await;
    assert!(calls + spare < asked() && asked() <= most, "{} of at most {most}", asked());
    let (before, refused) = (asked(), count(&retries("no_budget")));
    assert!(refused > 0);

    // Nothing is left for one that takes long: it goes on waiting.
    let call = both[0].call(Duration::from_secs(2));
    stock(&peer, &call, "slow").await.expect_err("too slow");
    assert_eq!((asked() - before, count(&retries("slow"))), (1, 0));
    assert!(count(&retries("no_budget")) > refused);
}

#[tokio::test]
async fn peers_that_go_away_one_after_the_other_fail_no_call_and_need_no_budget() {
    let mut both = [start().await, start().await];
    let (peer, count) = counted(&both.each_ref().map(|running| running.addr));
    let call = both[0].call(Duration::from_secs(20));
    for round in 0..4 {
        let away = &mut both[round % 2];
        away.drain.cancel();
        let addr = away.addr;
        for _ in 0..64 {
            // What cannot be sent again either: a call is taken, or it was never sent.
            stock_repeating(&peer, &call, Repeat::Unsent, "widget").await.expect("the other answers");
        }
        soon("it drains", &mut away.served).await.expect("no panic");
        stock_repeating(&peer, &call, Repeat::Unsent, "widget").await.expect("the other answers");
        *away = start_at(addr).await;
        eventually("it is asked again", async || {
            stock_repeating(&peer, &call, Repeat::Unsent, "widget").await.expect("answered");
            seen(&both[round % 2]) > 0
        })
        .await;
    }
    assert_eq!((count(&retries("failed")), count(&retries("no_budget")), count(DOWN)), (0, 0, 0));
}

#[tokio::test]
async fn a_lone_peer_that_is_started_anew_between_two_calls_is_not_missed() {
    let mut running = start().await;
    let peer = running.peer();
    for _ in 0..3 {
        stock_repeating(&peer, &running.call(DEADLINE), Repeat::Unsent, "widget").await.expect("answered");
        running.drain.cancel();
        soon("it drains", &mut running.served).await.expect("no panic");
        running = start_at(running.addr).await;
        stock_repeating(&peer, &running.call(DEADLINE), Repeat::Unsent, "widget").await.expect("answered");
    }
}
