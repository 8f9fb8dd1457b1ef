//! Hints go by themselves, and not before their time.

use inventory::stock::{
    HINT_GRACE_SECONDS, ReserveRequest,
    conformance::{Stage, id},
    redis::keys::Spread,
};

use crate::fixture::SingleFixture;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_lasts_its_grace_after_the_deadline_that_a_repeat_lengthened() {
    let fixture = SingleFixture::start().await;
    let stage = Stage::open(&fixture, 10, 0).await;
    let (_, hint) = Spread::OneServer.hint(id(1));
    let short = ReserveRequest { hint: true, ..stage.short_request(id(1), 1) };
    let mut most = 0;
    for request in [&short, &stage.client_request(id(1), 1), &short] {
        stage.send(request).await;
        most = most.max(request.ttl.duration().as_secs() + HINT_GRACE_SECONDS);
        let left: u64 = fixture.hand().cli(&["TTL", &hint]).await.trim().parse().expect("seconds");
        assert!((most - 30..=most).contains(&left), "{left} of {most}");
    }
}
