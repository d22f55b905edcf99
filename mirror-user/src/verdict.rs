//! `mirror verdict`: is the new version as good as the old one? In: the admin servers of agents, read twice. Out:
//! on stdout, what the agents have counted of a route and its shadows in between, each number with its limit; and
//! an exit code for a script. It changes nothing.
//!
//! What is judged is pure: `counts` (differences and sums), `share` and `times` (statistics), `judge`.

#![forbid(unsafe_code)]

mod args;
mod counts;
mod judge;
mod number;
mod reading;
mod share;
mod text;
mod times;

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

pub use self::args::{Ratio, Share, VerdictArgs, VerdictOutput};
use self::{
    judge::{Judged, Verdict, Window},
    reading::Reading,
};
use crate::{plain, stdout};

/// Exit code if there is no verdict. (0 is pass, 1 fail, 2 not enough data.)
pub const NO_VERDICT: u8 = 3;

/// Reads the agents, waits, reads them again, and prints what that shows. The exit code is 0 if the shadow is
/// as good as the limits ask, 1 if it is not, 2 if there is not enough data.
///
/// # Errors
/// An agent does not respond or was restarted meanwhile, no agent knows the route or the shadow, or stdout cannot be written.
/// The text says what to do.
pub async fn run(args: &VerdictArgs) -> anyhow::Result<ExitCode> {
    let verdict = judge(args).await?;
    match args.output {
        VerdictOutput::Text => stdout::print(&plain::page(&verdict.to_string())),
        VerdictOutput::Json => {
            stdout::print(&plain::json(serde_json::to_string_pretty(&verdict)? + "\n"))
        }
    }
    .context("writing to stdout")?;
    Ok(ExitCode::from(verdict.verdict.exit_code()))
}

async fn judge(args: &VerdictArgs) -> anyhow::Result<Verdict> {
    let route = args.kind.named(args.route.clone());
    let first = Reading::take(&args.admin).await?;
    // What is misspelled is known before the wait.
    let shadows = first.shadows(&route, args.shadow.as_deref())?;
    if args.window.is_zero() {
        let counted = first.counted(None, &route, &shadows)?;
        let window = Window::new(&route, None, &first);
        return Ok(Verdict::new(window, Judged::all(counted, &args.limits())));
    }
    let begun = Instant::now();
    sleep(args.window).await;
    let last = Reading::take(&args.admin).await.with_context(|| {
        let waited = humantime::format_duration(args.window);
        format!("the agents cannot be read again after {waited}, so that there is no verdict")
    })?;
    let window = Window::new(&route, Some(begun.elapsed()), &last);
    last.follows(&first)?;
    let shadows = last.shadows(&route, args.shadow.as_deref())?;
    let counted = last.counted(Some(&first), &route, &shadows)?;
    Ok(Verdict::new(window, Judged::all(counted, &args.limits())))
}
