//! OTLP over gRPC.

use prost::Message as _;
use tonic::{Code, Request, Response, Status};
use trilith_ingest::{otlp_traces, status};
use trilith_model::{Error, ErrorKind, task};
use trilith_proto::otlp::collector::trace::v1::trace_service_server::TraceService;
use trilith_proto::otlp::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};

use super::{Otlp, Stored};
use crate::common::TENANT_HEADER;

pub struct Receiver {
    pub otlp: Otlp,
}

/// A status with the details that OpenTelemetry senders look for.
pub fn status_of(error: &Error) -> Status {
    let details = status::error_status(error);
    Status::with_details(
        Code::from_i32(details.code),
        details.message.clone(),
        details.encode_to_vec().into(),
    )
}

/// # Errors
/// `Unauthenticated` without a tenant, `InvalidArgument` for a bad one.
pub fn tenant_of<T>(shared: &crate::common::Shared, request: &Request<T>) -> Result<trilith_model::TenantId, Status> {
    let id = request
        .metadata()
        .get(TENANT_HEADER)
        .map(|v| v.to_str().unwrap_or("\u{fffd}"));
    shared.tenant_of(id).map_err(|e| {
        if e.status == http::StatusCode::UNAUTHORIZED {
            Status::unauthenticated(e.message)
        } else {
            Status::invalid_argument(e.message)
        }
    })
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let tenant = tenant_of(&self.otlp.shared, &request)?;
        let limits = self.otlp.shared.limits.limits(&tenant);
        let message = request.into_inner();
        let stored = async {
            let decoded = task::compute(move || {
                let bytes = message.encoded_len() as u64;
                otlp_traces::from_request(message, bytes)
            })
            .await??;
            if limits.request_bytes_max > 0 && decoded.bytes > limits.request_bytes_max {
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    format!(
                        "request of {} bytes exceeds {} (limits.request-size)",
                        decoded.bytes, limits.request_bytes_max
                    ),
                ));
            }
            self.otlp
                .store(&tenant, &limits, decoded.batch, decoded.bytes, decoded.rejections)
                .await
        };
        match stored.await {
            Ok(Stored { rejected: 0, .. }) => Ok(Response::new(ExportTraceServiceResponse::default())),
            Ok(Stored { rejected, message }) => {
                let rejected = i64::try_from(rejected).unwrap_or(i64::MAX);
                Ok(Response::new(status::partial_response(rejected, &message)))
            }
            Err(e) => Err(status_of(&e)),
        }
    }
}
