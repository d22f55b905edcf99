//! The schemes that a route may name: `http` and `https`, with their well-known ports. Pure.

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpScheme {
    /// Well-known port 80 (RFC 9110, section 4.2.1).
    Http,
    /// Well-known port 443 (RFC 9110, section 4.2.2).
    Https,
}

impl HttpScheme {
    /// As a URI has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of a URI that names none.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// A scheme is compared without case (RFC 3986, section 3.1).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Http, Self::Https].into_iter().find(|s| s.as_str().eq_ignore_ascii_case(text))
    }
}
