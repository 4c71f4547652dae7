//! `tempopb.StreamingQuerier` over gRPC. `Search` answers with one complete message, or several when it is large; the other
//! methods are not available in this version and say so.

use std::pin::Pin;

use futures::Stream;
use tonic::{Request, Response, Status};
use trilith_model::Error;
use trilith_proto::tempopb::streaming_querier_server::StreamingQuerier;
use trilith_proto::tempopb::{
    QueryInstantRequest, QueryInstantResponse, QueryRangeRequest, QueryRangeResponse, SearchRequest, SearchResponse,
    SearchTagValuesRequest, SearchTagValuesResponse, SearchTagValuesV2Response, SearchTagsRequest, SearchTagsResponse,
    SearchTagsV2Response,
};
use trilith_traceql::TagQuery;

use super::Tempo;
use super::search::{Wanted, find, message, options};
use crate::common::Failure;
use crate::otlp::grpc::{status_of, tenant_of};

/// Traces per message; keeps messages well below the 4 MiB that gRPC clients take by default.
const TRACES_PER_MESSAGE: usize = 200;

const LIMIT_DEFAULT: usize = 20;
const SPANS_DEFAULT: usize = 3;

pub struct Querier {
    pub tempo: Tempo,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn refuse(failure: Failure) -> Status {
    match failure.status.as_u16() {
        400 => Status::invalid_argument(failure.message),
        401 => Status::unauthenticated(failure.message),
        404 => Status::not_found(failure.message),
        429 => Status::resource_exhausted(failure.message),
        499 => Status::cancelled(failure.message),
        503 => Status::unavailable(failure.message),
        504 => Status::deadline_exceeded(failure.message),
        _ => Status::internal(failure.message),
    }
}

fn missing<T>(method: &str) -> Result<T, Status> {
    Err(status_of(&Error::unsupported(format!(
        "StreamingQuerier/{method} is not available in this version"
    ))))
}

#[tonic::async_trait]
impl StreamingQuerier for Querier {
    type SearchStream = Answers<SearchResponse>;
    type SearchTagsStream = Answers<SearchTagsResponse>;
    type SearchTagsV2Stream = Answers<SearchTagsV2Response>;
    type SearchTagValuesStream = Answers<SearchTagValuesResponse>;
    type SearchTagValuesV2Stream = Answers<SearchTagValuesV2Response>;
    type MetricsQueryRangeStream = Answers<QueryRangeResponse>;
    type MetricsQueryInstantStream = Answers<QueryInstantResponse>;

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<Self::SearchStream>, Status> {
        let tenant = tenant_of(&self.tempo.shared, &request)?;
        let r = request.into_inner();
        let seconds = |s: u32| u64::from(s) * 1_000_000_000;
        let range = (seconds(r.start), if r.end == 0 { u64::MAX } else { seconds(r.end) });
        if range.1 <= range.0 {
            return Err(Status::invalid_argument("start must be before end"));
        }
        let or = |n: u32, default: usize| if n == 0 { default } else { n as usize };
        let options = options(
            or(r.limit, LIMIT_DEFAULT),
            or(r.spans_per_span_set, SPANS_DEFAULT),
            range,
        )
        .map_err(refuse)?;
        let wanted = if r.query.is_empty() {
            let ns = |ms: u32| u64::from(ms) * 1_000_000;
            let mut pairs: Vec<String> = r.tags.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
            pairs.sort();
            let tags = TagQuery::new(&pairs.join(" "), ns(r.min_duration_ms), ns(r.max_duration_ms));
            Wanted::Tags(tags.map_err(|e| status_of(&e))?)
        } else {
            Wanted::TraceQl(r.query)
        };
        let found = find(&self.tempo, &tenant, &wanted, options).await.map_err(refuse)?;
        let mut whole = message(&found);
        let mut parts = Vec::new();
        // Always at least one message, and the costs in every one of them.
        loop {
            let rest = whole.traces.split_off(whole.traces.len().min(TRACES_PER_MESSAGE));
            let next = SearchResponse {
                traces: rest,
                metrics: whole.metrics,
            };
            parts.push(Ok(std::mem::replace(&mut whole, next)));
            if whole.traces.is_empty() {
                break;
            }
        }
        Ok(Response::new(Box::pin(futures::stream::iter(parts))))
    }

    async fn search_tags(&self, _: Request<SearchTagsRequest>) -> Result<Response<Self::SearchTagsStream>, Status> {
        missing("SearchTags")
    }

    async fn search_tags_v2(
        &self,
        _: Request<SearchTagsRequest>,
    ) -> Result<Response<Self::SearchTagsV2Stream>, Status> {
        missing("SearchTagsV2")
    }

    async fn search_tag_values(
        &self,
        _: Request<SearchTagValuesRequest>,
    ) -> Result<Response<Self::SearchTagValuesStream>, Status> {
        missing("SearchTagValues")
    }

    async fn search_tag_values_v2(
        &self,
        _: Request<SearchTagValuesRequest>,
    ) -> Result<Response<Self::SearchTagValuesV2Stream>, Status> {
        missing("SearchTagValuesV2")
    }

    async fn metrics_query_range(
        &self,
        _: Request<QueryRangeRequest>,
    ) -> Result<Response<Self::MetricsQueryRangeStream>, Status> {
        missing("MetricsQueryRange")
    }

    async fn metrics_query_instant(
        &self,
        _: Request<QueryInstantRequest>,
    ) -> Result<Response<Self::MetricsQueryInstantStream>, Status> {
        missing("MetricsQueryInstant")
    }
}
