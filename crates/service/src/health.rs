//! Asking a peer whether it serves, over `grpc.health.v1`.

use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    call::Call,
    rpc_client::{Peer, Repeat},
};

/// Whether `service` of the peer serves; `""` asks for the whole server. No answer within the call's deadline is a no.
pub async fn serving(peer: &Peer, call: &Call, service: &str) -> bool {
    let question = HealthCheckRequest { service: service.to_owned() };
    let answer = peer
        .unary(call, "grpc.health.v1.Health/Check", Repeat::Safe, question, |channel, request| async move {
            HealthClient::new(channel).check(request).await
        })
        .await;
    answer.is_ok_and(|answer| answer.status() == ServingStatus::Serving)
}
