//! Refusals: what mirror refuses, resets or closes on its own account. In: what was wrong, and whose
//! it was. Out: a count by reason, a line of the access log, and a line of the log where one may be
//! written. Nothing here answers anybody. What has an exchange tells through its [`ExchangeRecord`], the rest
//! here. ARCHITECTURE.md has the list of all.
//!
//! [`ExchangeRecord`]: super::exchange::ExchangeRecord

use std::{fmt::Display, io};

use h2::{Reason, server::Unaccepted};

use super::{
    body::BodyError,
    client::Client,
    context::Context,
    http1::{self, FirstLine, HeadError},
    primary::Failure,
    validate::Malformed,
};
use crate::{
    memory::MemoryExceeded,
    outcome::{RefusalEvent, RefusalReason},
    route::Frontend,
    workload::Workload,
};

/// A head of HTTP/1 that is no request: it was answered with the error's status.
pub(super) fn head(ctx: &Context, client: &Client, error: HeadError, first: &FirstLine) {
    let refusal = RefusalReason::from(error);
    let (status, why) = (Some(error.status().as_u16()), format!("mirror: {error}"));
    let frontend = Some(&*client.frontend);
    let (name, first_line) = (&*client.workload.name, first.parts());
    record(
        ctx,
        &RefusalEvent { client: name, frontend, refusal, status, first_line, reason: &why },
    );
}

/// A connection that ends without a word.
pub(super) fn connection(
    ctx: &Context,
    client: &Client,
    refusal: RefusalReason,
    why: &dyn Display,
) {
    unknown(ctx, &client.workload, Some(&client.frontend), refusal, why);
}

/// Requests of HTTP/2 that ended before there was an exchange: `before` and now, of one connection.
pub(super) fn streams(ctx: &Context, client: &Client, before: Unaccepted, now: Unaccepted) {
    let malformed = "mirror: the request is malformed (RFC 9113, section 8.1.1)";
    let oversize = "mirror: the header list is larger than 256 KiB, or has more than 1,000 fields";
    let refused = "mirror: the connection has as many streams as it may have";
    for (count, refusal, status, reason) in [
        (now.malformed - before.malformed, RefusalReason::MalformedStream, None, malformed),
        (now.oversize - before.oversize, RefusalReason::HeadTooLarge, Some(431), oversize),
        (now.refused - before.refused, RefusalReason::StreamLimit, None, refused),
    ] {
        let (name, frontend) = (&*client.workload.name, Some(&*client.frontend));
        let first_line = [None, None, Some("HTTP/2.0")];
        let event = RefusalEvent { client: name, frontend, refusal, status, first_line, reason };
        (0..count).for_each(|_| record(ctx, &event));
    }
}

/// The same where it may not even be known what it was for.
pub(super) fn unknown(
    ctx: &Context,
    workload: &Workload,
    frontend: Option<&Frontend>,
    refusal: RefusalReason,
    why: &dyn Display,
) {
    let (client, why) = (&*workload.name, format!("mirror: {why}"));
    let (status, first_line) = (None, [None; 3]);
    record(ctx, &RefusalEvent { client, frontend, refusal, status, first_line, reason: &why });
}

fn record(ctx: &Context, event: &RefusalEvent<'_>) {
    if ctx.may_log() {
        let RefusalEvent { client, status, reason: why, .. } = event;
        let frontend = event.frontend.map(|frontend| frontend.service.to_string());
        let frontend = frontend.unwrap_or_else(|| "-".into());
        tracing::warn!(%client, %frontend, status, why, "refused by mirror");
    }
    ctx.recorder.refused(event);
}

/// A connection of HTTP/2 that our side ends; None where the client did. `error`: of the connection.
pub(super) fn of_http2(error: &h2::Error) -> Option<RefusalReason> {
    if !error.is_library() {
        return None;
    }
    let calm = error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
    Some(if calm { RefusalReason::Http2Flood } else { RefusalReason::MalformedHttp2 })
}

/// No connection to a primary, or to the original destination, came about.
pub(super) fn of_connect(error: &io::Error) -> RefusalReason {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    match error.kind() {
        ConnectionRefused => RefusalReason::ConnectRefused,
        TimedOut => RefusalReason::ConnectTimeout,
        HostUnreachable | NetworkUnreachable => RefusalReason::Unreachable,
        _ => RefusalReason::ConnectFailed,
    }
}

/// A request that got no response; None where that is the primary's own doing.
pub(super) fn of_failure(failure: &Failure) -> Option<RefusalReason> {
    match failure {
        Failure::NoEndpoint => Some(RefusalReason::NoEndpoint),
        Failure::Connect(_, error) => Some(of_connect(error)),
        Failure::Unreadable(_, http1::Error::Unreadable(HeadError::Memory(exceeded)), _) => {
            Some((*exceeded).into())
        }
        Failure::Unreadable(..) => Some(RefusalReason::MalformedResponse),
        Failure::Lost(_, broken) => of_response(broken),
        Failure::InvalidHead(..) => Some(RefusalReason::Unfit),
        Failure::NoProtocols(_) => Some(RefusalReason::NoConnectProtocol),
        Failure::TimedOut(_) => Some(RefusalReason::Timeout),
        Failure::Refused(_) => None,
    }
}

/// A response that broke; None where that is the primary's own doing.
pub(super) fn of_response(broken: &BodyError) -> Option<RefusalReason> {
    match broken {
        BodyError::TimedOut => Some(RefusalReason::Timeout),
        BodyError::Http1(http1::Error::Memory(exceeded)) => Some((*exceeded).into()),
        broken => broken.malformed().map(|_| RefusalReason::MalformedResponse),
    }
}

impl From<MemoryExceeded> for RefusalReason {
    fn from(exceeded: MemoryExceeded) -> Self {
        match exceeded {
            MemoryExceeded::Connection => Self::ConnectionMemory,
            MemoryExceeded::Workload => Self::PodMemory,
            MemoryExceeded::Agent => Self::AgentMemory,
            MemoryExceeded::Connections => Self::PodConnections,
        }
    }
}

impl From<HeadError> for RefusalReason {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::TooLarge => Self::HeadTooLarge,
            HeadError::TooMany => Self::TooManyFields,
            HeadError::LongTarget => Self::TargetTooLong,
            HeadError::Target => Self::InvalidTarget,
            HeadError::Field => Self::InvalidField,
            HeadError::Length => Self::InvalidLength,
            HeadError::Encoding => Self::InvalidEncoding,
            HeadError::Syntax(_) => Self::MalformedHead,
            HeadError::Memory(exceeded) => exceeded.into(),
        }
    }
}

impl From<Malformed> for RefusalReason {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::NoHost | Malformed::ManyHosts | Malformed::BadHost => Self::InvalidHost,
            Malformed::BadTarget | Malformed::RawTarget => Self::InvalidTarget,
            Malformed::ConnectContent => Self::ConnectContent,
            Malformed::Lengths => Self::InvalidLength,
            Malformed::Encoding => Self::InvalidEncoding,
        }
    }
}
