//! Requests that no primary gets. In: the request, and the copies that its filters have made. Out: mirror's
//! own response, once those copies are in flight and its content has been read.

use http::{Response, Version};

use super::{
    ExchangeRecord, ResponseBody, discard::discard as discard_body, filters::FilterResponse,
    local_reply,
};
use crate::proxy::{
    body::IncomingBody,
    interim::Interim,
    shadow::{Offer, PreparedCopy},
};

/// What no primary gets, because a filter responds.
pub(super) struct UnsentRequest {
    body: IncomingBody,
    version: Version,
    interim: Interim,
    offers: Vec<Offer>,
}

impl UnsentRequest {
    pub(super) fn new(
        body: IncomingBody,
        version: Version,
        interim: Interim,
        offers: Vec<Offer>,
    ) -> Self {
        Self { body, version, interim, offers }
    }
}

/// A filter responds, when the copies that were made before it have what there is of the content.
pub(super) async fn respond(
    record: ExchangeRecord,
    response: FilterResponse,
    request: UnsentRequest,
) -> Response<ResponseBody> {
    let UnsentRequest { body, version, interim, offers } = request;
    match response {
        FilterResponse::Whole { source, status, headers } => {
            let (copies, writers): (Vec<_>, Vec<_>) = offers.into_iter().unzip();
            copies.into_iter().for_each(PreparedCopy::dispatch);
            let writers = writers.into_iter().flatten().collect();
            if let Some(discarding) = discard_body(body, version, &interim, writers) {
                discarding.await;
            }
            local_reply::filtered(record, source, status, headers)
        }
        FilterResponse::Malformed(why) => {
            discard(body, version, offers).await;
            local_reply::bad_request(record, &why)
        }
    }
}

/// Before mirror refuses a request. It was selected all the same, and a copy with content is cut: a shadow
/// does not do what no primary has done.
pub(super) async fn discard(body: IncomingBody, version: Version, offers: Vec<Offer>) {
    offers.into_iter().for_each(|(copy, _writer)| copy.dispatch());
    if let Some(discarding) = discard_body(body, version, &Interim::Ignore, Vec::new()) {
        discarding.await;
    }
}
