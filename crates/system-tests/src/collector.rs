//! Collects spans over OTLP, as a collector does.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A collector in the test's process.
#[derive(Clone, Default)]
pub struct Sink(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.lock().expect("whole").extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Sink {
    /// On a free port; also the setting that names it.
    pub async fn start() -> (Self, String) {
        let sink = Self::default();
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", socket.local_addr().expect("bound"));
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(sink.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(socket)));
        (sink, url)
    }

    /// What has come by now.
    pub fn spans(&self) -> Vec<Span> {
        self.0.lock().expect("whole").clone()
    }
}
