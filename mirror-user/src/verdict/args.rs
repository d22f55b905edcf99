//! The command line of `mirror verdict`.

use std::{str::FromStr, time::Duration};

use super::judge::Limits;
use crate::{
    cli,
    model::{ObjectName, RouteKind},
};

/// Flags of `mirror verdict`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 if every judgement passes; 1 if one fails; 2 if none fails and there is \
                        not enough data for one; 3 if there is no verdict: the command line is wrong, an agent \
                        does not respond or was restarted meanwhile, or no agent knows the route or the shadow."
)]
pub struct VerdictArgs {
    /// Route whose shadows are judged: NAMESPACE/NAME, or NAME in the Namespace "default".
    #[arg(value_name = "ROUTE", value_parser = cli::object_name)]
    pub route: ObjectName,

    /// Kind of the route.
    #[arg(long, value_name = "KIND", default_value = "HTTPRoute", value_parser = kind)]
    pub kind: RouteKind,

    /// Judge only this shadow of the route: NAMESPACE/NAME:PORT.
    #[arg(long, value_name = "SHADOW", value_parser = shadow)]
    pub shadow: Option<String>,

    /// How long to count: what the agents count until then is judged. 0s judges what they have counted since
    /// their start. 0s to 24h.
    #[arg(long = "for", value_name = "DURATION", default_value = "5m",
          value_parser = |s: &str| cli::duration(s, 0, 86_400_000))]
    pub window: Duration,

    /// Admin server of an agent, as ADDRESS:PORT, or as NAME:PORT, which stands for all addresses of the
    /// name. Each agent counts only the requests of pods on its node, so give those of all nodes with such pods.
    /// Repeatable; comma-separated in the environment.
    #[arg(long, env = "MIRROR_ADMIN", value_name = "ADDR", value_delimiter = ',',
          default_value = "127.0.0.1:15920", value_parser = admin)]
    pub admin: Vec<String>,

    /// Most responses of the shadow that may have another class of status than the primary's to the same
    /// request (with gRPC: that succeed where the primary's fails, or the reverse). A share such as 0.1%;
    /// 100% permits everything.
    #[arg(long, value_name = "SHARE", default_value = "0.1%")]
    pub max_different: Share,

    /// Most responses of the shadow that may be errors (5xx; with gRPC another grpc-status than 0) where
    /// the primary's is none.
    #[arg(long, value_name = "SHARE", default_value = "1%")]
    pub max_errors: Share,

    /// Most times that the shadow may take of the primary's time to the head of its response, on average.
    #[arg(long, value_name = "RATIO", default_value = "1.2")]
    pub max_slower: Ratio,

    /// Most copies that may be lost: dropped, or without a response.
    #[arg(long, value_name = "SHARE", default_value = "1%")]
    pub max_lost: Share,

    /// Output format.
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: VerdictOutput,
}

/// How the verdict is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum VerdictOutput {
    /// A sentence, then tables.
    Text,
    /// The same as one JSON object.
    Json,
}

impl VerdictArgs {
    pub(super) fn limits(&self) -> Limits {
        Limits {
            different: self.max_different.0,
            errors: self.max_errors.0,
            slower: self.max_slower.0,
            lost: self.max_lost.0,
        }
    }
}

/// A share of more than nothing: no sample, however large, shows that something never happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub(super) f64);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').map(str::trim_end).and_then(|n| n.parse::<f64>().ok());
        match number {
            Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self(percent / 100.0)),
            Some(0.0) => Err("no sample shows that something never happens: give a small share, \
                              for example 0.01%"
                .into()),
            Some(_) => Err("must be more than 0% and at most 100%".into()),
            None => Err("write a share in percent, for example 0.1%".into()),
        }
    }
}

/// How many times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(pub(super) f64);

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ratio = text.parse::<f64>().ok().filter(|ratio| ratio.is_finite() && *ratio > 0.0);
        ratio.map(Self).ok_or_else(|| {
            "write how many times the primary's time, for example 1.2 for 20 % longer".into()
        })
    }
}

fn kind(text: &str) -> Result<RouteKind, String> {
    RouteKind::of(text).ok_or_else(|| "mirror reads HTTPRoute and GRPCRoute".into())
}

fn shadow(text: &str) -> Result<String, String> {
    let parts = text.split_once('/').filter(|(namespace, _)| !namespace.is_empty());
    let port = parts.and_then(|(_, rest)| rest.split_once(':'));
    let port = port.filter(|(name, _)| !name.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(1..)) => Ok(text.to_owned()),
        _ => Err("write NAMESPACE/NAME:PORT of the Service that gets the copies".into()),
    }
}

fn admin(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.into()),
        _ => Err("write ADDRESS:PORT or NAME:PORT, for example 127.0.0.1:15920".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_what_can_be_shown() {
        let share = |text: &str| text.parse::<Share>();
        assert_eq!(share("0.1%"), Ok(Share(0.001)));
        assert_eq!(share("100 %"), Ok(Share(1.0)));
        assert!(share("0%").unwrap_err().contains("never"));
        for (text, why) in [
            ("0.1", "percent"),
            ("", "percent"),
            ("-1%", "more"),
            ("101%", "most"),
            ("NaN%", "most"),
        ] {
            let error = share(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert_eq!("1.2".parse(), Ok(Ratio(1.2)));
        for text in ["0", "-1", "inf", "NaN", "20%", ""] {
            assert!(text.parse::<Ratio>().unwrap_err().contains("1.2"), "{text}");
        }
    }

    #[test]
    fn names_are_checked_before_anything_is_read() {
        assert_eq!(shadow("shop/cart-v2:80"), Ok("shop/cart-v2:80".into()));
        for text in
            ["cart-v2:80", "shop/cart-v2", "shop/cart-v2:0", "/cart-v2:80", "shop/:80", "shop/a:b"]
        {
            assert!(shadow(text).unwrap_err().contains("NAMESPACE/NAME:PORT"), "{text}");
        }
        for text in ["127.0.0.1:15920", "[::1]:15920", "agents.mirror-system:15920"] {
            assert_eq!(admin(text), Ok(text.into()));
        }
        for text in ["127.0.0.1", ":15920", "a:b", ""] {
            assert!(admin(text).unwrap_err().contains("ADDRESS:PORT"), "{text}");
        }
        assert_eq!(kind("GRPCRoute"), Ok(RouteKind::Grpc));
        assert!(kind("TCPRoute").unwrap_err().contains("HTTPRoute"));
    }
}
