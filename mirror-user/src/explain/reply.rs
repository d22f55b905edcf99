//! A refusal by mirror itself, as its client gets it. In: the status and the reason. Out: the status, or to a
//! gRPC call what stands for it (`proxy::grpc_status`).

use std::fmt::{self, Display, Formatter};

use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::{plain::Plain, proxy::grpc_status};

/// What a client gets.
#[derive(Debug, Serialize)]
pub(super) struct Reply {
    pub(super) status: u16,
    #[serde(flatten)]
    pub(super) grpc: Option<GrpcStatus>,
}

/// Fields of a response to a gRPC call, as they are sent.
#[derive(Clone, Debug, Serialize)]
pub(super) struct GrpcStatus {
    pub(super) grpc_status: String,
    pub(super) grpc_message: String,
}

impl Reply {
    /// `call`: the request is one of gRPC.
    pub(super) fn new(call: bool, status: StatusCode, why: &str) -> Self {
        if !call {
            return Self { status: status.as_u16(), grpc: None };
        }
        let fields = grpc_status::fields(status, &format!("mirror: {why}"));
        let field = |name| {
            let text = fields.get(name).map(HeaderValue::to_str);
            text.and_then(Result::ok).unwrap_or_default().to_owned()
        };
        let grpc =
            GrpcStatus { grpc_status: field("grpc-status"), grpc_message: field("grpc-message") };
        Self { status: StatusCode::OK.as_u16(), grpc: Some(grpc) }
    }
}

impl Display for Reply {
    /// `404`, or `200, grpc-status 12, grpc-message "mirror: ..."`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { status, grpc } = self;
        write!(f, "{status}")?;
        grpc.iter().try_for_each(|GrpcStatus { grpc_status, grpc_message }| {
            write!(f, ", grpc-status {grpc_status}, grpc-message \"{}\"", Plain(grpc_message))
        })
    }
}
