//! The gRPC service of metrics. Its codec hands over the bytes of the message, so that the walk of the ingest layer reads
//! them and no message of thirty times their size is built.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use trilith_ingest::otlp_metrics::Export;
use trilith_proto::otlp::collector::metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse};

use super::GRPC_MESSAGE_BYTES_MAX;
use super::grpc::{status_of, tenant_of};
use super::metrics::MetricsReceiver;

const EXPORT: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

#[derive(Clone)]
pub struct MetricsService(pub MetricsReceiver);

impl NamedService for MetricsService {
    const NAME: &'static str = "opentelemetry.proto.collector.metrics.v1.MetricsService";
}

impl Service<http::Request<tonic::body::Body>> for MetricsService {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let export = self.clone();
        Box::pin(async move {
            if request.uri().path() != EXPORT {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let mut grpc = Grpc::new(Raw)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Zstd)
                .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
            Ok(grpc.unary(export, request).await)
        })
    }
}

impl UnaryService<Bytes> for MetricsService {
    type Response = ExportMetricsServiceResponse;
    type Future = BoxFuture<Response<Self::Response>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let receiver = self.0.clone();
        Box::pin(async move {
            let tenant = tenant_of(&receiver.shared, &request)?;
            let limits = receiver.shared.limits.limits(&tenant);
            let message = request.into_inner();
            let stored = receiver
                .store(tenant, limits, move |limits| Export::from_message(message, limits))
                .await
                .map_err(|e| status_of(&e))?;
            let partial = (stored.rejected > 0).then(|| ExportMetricsPartialSuccess {
                rejected_data_points: i64::try_from(stored.rejected).unwrap_or(i64::MAX),
                error_message: stored.message,
            });
            Ok(Response::new(ExportMetricsServiceResponse {
                partial_success: partial,
            }))
        })
    }
}

/// Bytes in, an answer out.
struct Raw;

impl Codec for Raw {
    type Encode = ExportMetricsServiceResponse;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = ExportMetricsServiceResponse;
    type Error = Status;

    fn encode(&mut self, item: Self::Item, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(out)
            .map_err(|e| Status::internal(format!("the answer cannot be written: {e}")))
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}
