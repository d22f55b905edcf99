//! Tests of the text of a verdict.

use super::*;
use crate::verdict::{
    counts::tests::reasons,
    judge::{
        CountingAgent,
        tests::{LIMITS, counted},
    },
};

fn window(seconds: Option<f64>) -> Window {
    let agent = |address: &str, unready| CountingAgent {
        address: address.into(),
        uptime_seconds: 3_600.0,
        unready,
    };
    let agents =
        vec![agent("10.0.0.1:15920", None), agent("10.0.0.2:15920", Some("no\u{1b}\n".into()))];
    Window { kind: "HTTPRoute", route: "default/web".into(), seconds, agents }
}

#[test]
fn a_sentence_comes_first_and_nothing_of_others_is_obeyed() {
    let mut counted =
        counted(&[("2xx", &[("2xx", 48_061), ("5xx", 149)]), ("none", &[("2xx", 3)])]);
    counted.shadow = "default/v2\u{1b}[2J:80".into();
    counted.other_routes.insert("default/o\u{1b}".into());
    counted.tapped = true;
    counted.counts.unknown = reasons(&[("timeout", 2), ("a\n", 1)]);
    let shadows = Judged::all(vec![counted], &LIMITS);
    let text = Verdict::new(window(Some(300.2)), shadows).to_string();
    let lines: Vec<_> = text.lines().collect();
    let expected = [
        "fail: default/v2\\u{1b}[2J:80 responded with another status class than the primary in 0.309 % of \
         48,210 responses (0.263 to 0.363 %), and with an error where the primary had none in 0.309 %; it took \
         1 times the primary's time (1 to 1); 0.00622 % of 48,216 copies were lost.",
        "",
        "judgement  measured                   95 % interval       limit     result",
        "different  0.309 % (149 of 48,210)    0.263 to 0.363 %    0.1 %     fail",
        "errors     0.309 % (149 of 48,210)    0.263 to 0.363 %    1 %       pass",
        "slower     1 times                    1 to 1              1.2       pass",
        "lost       0.00622 % (3 of 48,216)    0.00212 to 0.0183 % 1 %       pass",
        "",
        "responses, by the class of the primary's (rows) and the shadow's (columns)",
        "                     2xx          5xx",
        "2xx               48,061          149",
        "none                   3            0",
        "not judged: 3 that the primary did not respond to (none)",
        "",
        "latency    primary                         shadow",
        "mean       1 ms                            1 ms",
        "p50        about 0.5 ms (0 ms to 1 ms)     about 0.5 ms (0 ms to 1 ms)",
        "p90        about 0.9 ms (0 ms to 1 ms)     about 0.9 ms (0 ms to 1 ms)",
        "p99        about 0.99 ms (0 ms to 1 ms)    about 0.99 ms (0 ms to 1 ms)",
        "",
        "copies unknown: a\\n 1, timeout 2",
        "",
        "copies are counted by shadow, not by route: `lost` includes those of default/o\\u{1b}",
        "",
        "connections are tapped at some frontend of the route: responses of primaries are not seen there, \
         and cannot be compared (mirror agent --mode)",
        "",
        "counted for HTTPRoute default/web by 2 agents in 5m",
        "the agent at 10.0.0.2:15920 is not ready: no\\u{1b}",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn what_is_missing_is_said() {
    let shadows = Judged::all(vec![counted(&[("2xx", &[("2xx", 12)])]), counted(&[])], &LIMITS);
    let text = Verdict::new(window(None), shadows).to_string();
    for expected in [
        "not enough data: 2 shadows\n",
        "different: there are 12 responses; if it stays at 0 %, some 3,838 would decide (an estimate)\n",
        "slower: there are 12 responses; 100 are needed at least\n",
        "lost: there are 12 copies; if it stays at 0 %, some 381 would decide (an estimate)\n",
        "not enough data: default/v2:80 responded to no request that the primary responded to as well; no copy has ended.\n",
        "different: there are 0 responses; 3,838 are needed at least\n",
        "counted for HTTPRoute default/web by 2 agents since the start of each, at most 1h ago\n",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let mut near = counted(&[("2xx", &[("2xx", 990)])]);
    near.counts.dropped = reasons(&[("connect", 10)]);
    let near = Verdict::new(window(None), Judged::all(vec![near], &LIMITS)).to_string();
    assert!(
        near.contains("lost: there are 1,000 copies; what is measured is so near to the limit"),
        "{near}"
    );
}
