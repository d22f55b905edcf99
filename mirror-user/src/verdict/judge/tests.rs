//! Tests of the judgements: counts in, results and their limits out.

use super::*;
use crate::verdict::counts::tests::reasons;

pub(in crate::verdict) const LIMITS: Limits =
    Limits { different: 0.001, errors: 0.01, slower: 1.2, lost: 0.01 };

/// So many times of 1 ms or 2.5 ms, the upper bounds of their buckets: nothing is uncertain.
fn times(of: [u64; 2]) -> HistogramDump {
    let sum_seconds = of[0] as f64 * 0.001 + of[1] as f64 * 0.0025;
    HistogramDump {
        bounds_seconds: vec![0.001, 0.0025],
        counts: vec![of[0], of[1], 0],
        sum_seconds,
    }
}

/// A shadow with these classes of its and the primary's responses; all take 1 ms, and no copy is lost.
pub(in crate::verdict) fn counted(classes: &[(&str, &[(&str, u64)])]) -> CountedShadow {
    let classes: Classes =
        classes.iter().map(|(primary, row)| ((*primary).to_owned(), reasons(row))).collect();
    let count = classes.values().flat_map(|row| row.values()).sum();
    let (primary, shadow) = (times([count, 0]), times([count, 0]));
    let counts = Counts { classes, primary, shadow, delivered: count, ..Counts::default() };
    CountedShadow {
        shadow: "default/v2:80".into(),
        counts,
        other_routes: BTreeSet::new(),
        tapped: false,
    }
}

fn judge(counted: CountedShadow) -> Judged {
    Judged::all(vec![counted], &LIMITS).remove(0)
}

fn results(judged: &Judged) -> [Outcome; 4] {
    judged.judgements.each_ref().map(|judgement| judgement.result)
}

use Outcome::{Fail, NotEnoughData, Pass};

#[test]
fn a_shadow_that_responds_as_its_primary_passes_once_there_is_enough() {
    let judged = judge(counted(&[("2xx", &[("2xx", 3_838)])]));
    assert_eq!((results(&judged), judged.verdict), ([Pass; 4], Pass));
    assert_eq!((judged.responses, judged.judgements[0].needed), (3_838, None));
    let judged = judge(counted(&[("2xx", &[("2xx", 3_837)])]));
    assert_eq!(results(&judged), [NotEnoughData, Pass, Pass, Pass]);
    assert_eq!((judged.judgements[0].needed, judged.verdict), (Some(3_838), NotEnoughData));
    let judged = judge(counted(&[]));
    assert_eq!(results(&judged), [NotEnoughData; 4]);
    let needed = judged.judgements.each_ref().map(|judgement| judgement.needed);
    assert_eq!(needed, [Some(3_838), Some(381), Some(100), Some(381)]);
    assert!(judged.judgements.iter().all(|judgement| judgement.measured.is_none()));
}

#[test]
fn errors_are_what_only_the_shadow_has() {
    let judged = judge(counted(&[
        ("2xx", &[("2xx", 9_000), ("4xx", 100), ("5xx", 300)]),
        ("5xx", &[("5xx", 500), ("2xx", 60), ("grpc_error", 40)]),
        // The primary's client went away.
        ("none", &[("2xx", 5_000), ("5xx", 7)]),
    ]));
    let [different, errors, ..] = &judged.judgements;
    assert_eq!((judged.responses, judged.without_primary), (10_000, 5_007));
    assert_eq!((different.count, different.of), (Some(500), 10_000));
    assert_eq!((errors.count, errors.of, errors.result), (Some(300), 10_000, Fail));
    assert_eq!(different.measured, Some(0.05));
    assert_eq!((results(&judged)[2..].to_vec(), judged.verdict), (vec![Pass, Pass], Fail));
    let judged = judge(counted(&[("grpc_ok", &[("grpc_ok", 900), ("grpc_error", 100)])]));
    assert_eq!(results(&judged)[..2], [Fail, Fail]);
    // What the primary cannot do either is no error of the shadow's, and another class all the same.
    let judged = judge(counted(&[("grpc_error", &[("5xx", 1_000)])]));
    assert_eq!((judged.judgements[0].count, judged.judgements[1].count), (Some(1_000), Some(0)));
    assert_eq!(results(&judged)[..2], [Fail, Pass]);
}

#[test]
fn slower_and_lost_have_limits_of_their_kinds() {
    let mut slow = counted(&[("2xx", &[("2xx", 10_000)])]);
    slow.counts.shadow = times([0, 10_000]);
    let judged = judge(slow);
    let slower = judged.judgement(Subject::Slower);
    assert!((slower.measured.unwrap() - 2.5).abs() < 1e-9 && slower.of == 10_000, "{slower:?}");
    assert_eq!(results(&judged), [Pass, Pass, Fail, Pass]);
    let mut lossy = counted(&[("2xx", &[("2xx", 9_700)])]);
    lossy.counts.dropped = reasons(&[("connect", 200), ("backoff", 60)]);
    lossy.counts.unknown = reasons(&[("timeout", 40)]);
    let judged = judge(lossy);
    let lost = judged.judgement(Subject::Lost);
    assert_eq!((lost.count, lost.of, lost.measured), (Some(300), 10_000, Some(0.03)));
    assert_eq!(results(&judged), [Pass, Pass, Pass, Fail]);
    // 95 of 10,000 is within the limit, and not surely.
    let mut near = counted(&[("2xx", &[("2xx", 9_905)])]);
    near.counts.dropped = reasons(&[("connect", 95)]);
    let judged = judge(near);
    let lost = judged.judgement(Subject::Lost);
    assert_eq!((lost.result, judged.verdict), (NotEnoughData, NotEnoughData));
    // z^2 * 0.01 * 0.99 / 0.0005^2
    assert_eq!(lost.needed, Some(152_122));
}

#[test]
fn the_worst_shadow_decides_and_each_outcome_has_its_code() {
    let window =
        || Window { kind: "HTTPRoute", route: "a/b".into(), seconds: None, agents: vec![] };
    let good = || judge(counted(&[("2xx", &[("2xx", 10_000)])]));
    let unsure = || judge(counted(&[("2xx", &[("2xx", 10)])]));
    let bad = || judge(counted(&[("2xx", &[("5xx", 1_000)])]));
    let code = |shadows| Verdict::new(window(), shadows).verdict.exit_code();
    assert_eq!(code(vec![good(), good()]), 0);
    assert_eq!(code(vec![good(), bad(), unsure()]), 1);
    assert_eq!(code(vec![good(), unsure()]), 2);
    assert_eq!(code(vec![]), 2);
}

#[test]
fn the_names_in_json_are_stable() {
    let mut counted = counted(&[("2xx", &[("2xx", 200), ("5xx", 1)])]);
    counted.other_routes.insert("default/other".into());
    let agents = vec![CountingAgent {
        address: "127.0.0.1:15920".into(),
        uptime_seconds: 7.0,
        unready: None,
    }];
    let window = Window { kind: "HTTPRoute", route: "a/b".into(), seconds: Some(5.0), agents };
    let json = serde_json::to_value(Verdict::new(window, vec![judge(counted)])).unwrap();
    let names = |value: &serde_json::Value| {
        let mut names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&json), "agents kind route seconds shadows verdict");
    assert_eq!(names(&json["agents"][0]), "address unready uptime_seconds");
    let shadow = &json["shadows"][0];
    assert_eq!(
        names(shadow),
        "classes copies judgements primary_latency responses shadow shadow_latency tapped verdict \
         without_primary"
    );
    let judgement = &shadow["judgements"][0];
    assert_eq!(names(judgement), "count interval limit measured needed of result subject");
    assert_eq!(names(&judgement["interval"]), "lower upper");
    assert_eq!(
        (&judgement["subject"], &judgement["result"]),
        (&"different".into(), &"not_enough_data".into())
    );
    assert_eq!(names(&shadow["primary_latency"]), "mean_seconds p50 p90 p99 responses");
    assert_eq!(names(&shadow["shadow_latency"]["p50"]), "above_seconds seconds up_to_seconds");
    assert_eq!(names(&shadow["copies"]), "delivered dropped other_routes unknown");
    assert_eq!(shadow["classes"]["2xx"]["5xx"], 1);
}
