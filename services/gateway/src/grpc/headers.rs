//! Which headers pass the gateway, in either direction.

use http::{HeaderMap, HeaderName, header};
use tonic::{Code, Status};

/// What an upstream gets from the client. All else is dropped: cookies and tokens are the gateway's, and a `kontor-` header
/// from outside would be a forgery. Deadline, trace and request id are written anew.
const FOR_UPSTREAM: [HeaderName; 3] = [
    header::CONTENT_TYPE,
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
];

/// Headers that belong to one connection (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Headers between kontor's own processes begin with this.
const OWN_PREFIX: &str = "kontor-";

/// The headers of a client that an upstream gets.
pub(super) fn for_upstream(headers: &HeaderMap) -> HeaderMap {
    // room for those that are added on the way: deadline, identity, id, trace
    let mut kept = HeaderMap::with_capacity(12);
    for name in FOR_UPSTREAM {
        if let Some(value) = headers.get(&name) {
            kept.insert(name, value.clone());
        }
    }
    kept
}

/// Removes from an upstream's headers or trailers what is not for clients.
pub(super) fn clean(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    let own: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(OWN_PREFIX))
        .cloned()
        .collect();
    for name in own {
        headers.remove(name);
    }
}

/// Reads the status among headers or trailers. One that tells of a mistake inside kontor loses its text: internals stay in
/// the log.
pub(super) fn read_status(headers: &mut HeaderMap) -> Option<Status> {
    // nearly every answer is fine: then nothing is parsed or copied
    if headers.get(Status::GRPC_STATUS).is_some_and(|code| code == "0") {
        return Some(Status::ok(""));
    }
    let status = Status::from_header_map(headers)?;
    if matches!(status.code(), Code::Unknown | Code::Internal | Code::DataLoss) {
        let safe = rpc::error::reject(status.code(), "INTERNAL", "Internal error");
        // a constant has a header form
        let _ = safe.add_header(headers);
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn an_upstream_gets_only_what_it_needs() {
        let sent = headers(&[
            ("content-type", "application/grpc"),
            ("grpc-encoding", "gzip"),
            ("grpc-timeout", "1H"),
            ("kontor-caller", "forged"),
            ("kontor-anything", "forged"),
            ("cookie", "session=x"),
            ("authorization", "Bearer x"),
            ("traceparent", "x"),
            ("x-request-id", "x"),
            ("x-forwarded-for", "198.51.100.7"),
            ("te", "trailers"),
            ("connection", "close"),
        ]);
        assert_eq!(
            for_upstream(&sent),
            headers(&[("content-type", "application/grpc"), ("grpc-encoding", "gzip")])
        );
    }

    #[test]
    fn a_client_gets_nothing_of_ours() {
        let mut answer = headers(&[
            ("content-type", "application/grpc"),
            ("kontor-set-session", "x"),
            ("kontor-clear-session", "1"),
            ("trailer", "x"),
            ("grpc-status", "0"),
        ]);
        clean(&mut answer);
        assert_eq!(
            answer,
            headers(&[("content-type", "application/grpc"), ("grpc-status", "0")])
        );
    }

    #[test]
    fn the_text_of_an_internal_error_stays_inside() {
        for code in ["2", "13", "15"] {
            let mut trailers = headers(&[
                ("grpc-message", "relation users"),
                ("grpc-status-details-bin", "cmVsYXRpb24"),
            ]);
            trailers.insert("grpc-status", HeaderValue::from_static(code));
            assert_eq!(read_status(&mut trailers).unwrap().message(), "relation users");
            let shown = Status::from_header_map(&trailers).unwrap();
            assert_eq!(
                (shown.message(), shown.code()),
                ("Internal error", Code::from_bytes(code.as_bytes()))
            );
            assert_eq!(rpc::error::reason(&shown).as_deref(), Some("INTERNAL"));
        }
        let mut trailers = headers(&[("grpc-status", "5"), ("grpc-message", "User not found")]);
        let before = trailers.clone();
        read_status(&mut trailers).unwrap();
        assert_eq!(trailers, before);
    }
}
