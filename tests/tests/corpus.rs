//! The corpus: raw conversations direct, through the agent, and through it with every request
//! mirrored. Every difference is on the committed list, with its reason.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy knows only the tests themselves")]

use std::{collections::BTreeMap, path::Path};

use mirror_tests::{
    Copies,
    corpus::{
        self, Conversation, Outcome, Trace,
        allow::{AllowList, Verdict, summary},
        ambiguous,
        stage::{ClientPath, Stage},
    },
};

const CONVERSE: &str = env!("CARGO_BIN_EXE_converse");

type Outcomes = BTreeMap<String, Vec<Outcome>>;

#[test]
fn every_difference_is_on_the_list() {
    let conversations = corpus::load().unwrap();
    let list = AllowList::load().unwrap();
    let names: Vec<_> = conversations.iter().map(|c| c.name.as_str()).collect();
    list.check_names(&names).unwrap();
    assert!(names.len() >= 150, "{} conversations", names.len());

    let stage = Stage::create("corpus", names.len()).unwrap();
    let agent = stage.agent().unwrap();
    let [direct, routed, mirrored] = [ClientPath::Direct, ClientPath::Routed, ClientPath::Mirrored]
        .map(|way| {
            let before = std::time::Instant::now();
            let seen = stage.play(Path::new(CONVERSE), way).unwrap();
            println!(
                "{way:?}: {} conversations in {:.1} s",
                seen.len(),
                before.elapsed().as_secs_f64()
            );
            seen
        });
    let taken = agent.metric("mirror_connections_total", &[]).unwrap();
    assert!(taken >= (2 * names.len()) as f64, "the agent took only {taken} connections");
    let copies = Copies::settled(&agent).unwrap();
    println!("copies: {copies}");
    assert!(copies.delivered > 100, "the shadow was not healthy: {copies}");
    check(&conversations, &list, [&direct, &routed, &mirrored]);
}

fn check(conversations: &[Conversation], list: &AllowList, seen: [&Outcomes; 3]) {
    let (mut equal, mut reasons, mut failures) = (0, Vec::new(), Vec::new());
    for conversation in conversations {
        let name = conversation.name.as_str();
        let [direct, routed, mirrored] = seen.map(|seen| Trace::of(conversation, &seen[name]));
        match list.check(name, &direct, &routed) {
            Verdict::Equal => equal += 1,
            Verdict::Allowed(why) => reasons.push(why),
            Verdict::Failed(why) => failures.push(format!("{name}\n{why}    direct:\n{direct}")),
        }
        let harm = list.harm(name, &routed, &mirrored);
        if !harm.is_empty() {
            failures.push(format!("{name}: a mirror changes what is seen:\n{harm:#?}"));
        }
    }
    let count = conversations.len();
    println!("{count} conversations: {equal} equal to the byte, {} on the list:", reasons.len());
    print!("{}", summary(reasons.iter().flatten()));
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_primary_never_gets_an_ambiguous_request() {
    let cases = ambiguous::load().unwrap();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    let stage = Stage::create("ambiguous", cases.len()).unwrap();
    let _agent = stage.agent().unwrap();
    for way in [ClientPath::Routed, ClientPath::Mirrored] {
        let text = stage.run(Path::new(CONVERSE), "ambiguous", way).unwrap();
        let seen: BTreeMap<String, ambiguous::Observed> = serde_json::from_str(&text).unwrap();
        let failures: Vec<_> = cases
            .iter()
            .filter_map(|case| case.check(&seen[&case.name]).err())
            .map(|error| error.to_string())
            .collect();
        println!("{way:?}: {} cases, {} fail", cases.len(), failures.len());
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}
