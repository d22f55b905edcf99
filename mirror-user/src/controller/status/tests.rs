//! What is written over which status, and when nothing is.

use proptest::prelude::*;

use super::*;

const THEN: &str = "2026-01-01T00:00:00Z";
const NOW: &str = "2026-01-02T00:00:00Z";

fn parent_ref(name: &str) -> Value {
    json!({"group": "", "kind": "Service", "name": name, "port": 80})
}

fn verdict(holds: bool, reason: &'static str) -> Condition {
    Condition { holds, reason, message: format!("because of {reason}") }
}

fn wanted(name: &str) -> ParentStatus {
    let accepted = verdict(true, "Accepted");
    let refs = verdict(false, "BackendNotFound");
    let conditions = vec![("Accepted", accepted), ("ResolvedRefs", refs)];
    ParentStatus { parent_ref: parent_ref(name), conditions }
}

/// With fields of a future API, and in another order.
fn foreign(name: &str) -> Value {
    json!({"controllerName": "example.net/other", "zz": [1, {"b": null}], "parentRef": parent_ref(name),
           "conditions": [{"type": "Programmed", "status": "Unknown", "observedGeneration": 99}]})
}

fn at(generation: i64, time: &str) -> Moment<'_> {
    Moment { generation, time }
}

fn written(current: &[Value], wanted: &[ParentStatus], moment: Moment<'_>) -> Vec<Value> {
    parents(current, wanted, moment).expect("a write")
}

#[test]
fn a_route_without_status_gets_an_entry_that_is_complete() {
    let list = written(&[], &[wanted("a")], at(3, NOW));
    assert_eq!(
        list,
        [json!({
            "parentRef": {"group": "", "kind": "Service", "name": "a", "port": 80},
            "controllerName": "mirror.dev/controller",
            "conditions": [
                {"type": "Accepted", "status": "True", "reason": "Accepted",
                 "message": "because of Accepted", "observedGeneration": 3, "lastTransitionTime": NOW},
                {"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound",
                 "message": "because of BackendNotFound", "observedGeneration": 3,
                 "lastTransitionTime": NOW},
            ],
        })]
    );
}

#[test]
fn what_is_so_already_is_not_written() {
    let list = written(&[foreign("a")], &[wanted("a")], at(3, THEN));
    assert_eq!(parents(&list, &[wanted("a")], at(3, NOW)), None);
    assert_eq!(parents(&[], &[], at(3, NOW)), None);
    assert_eq!(parents(&[foreign("a")], &[], at(3, NOW)), None);
}

#[test]
fn the_transition_time_changes_with_the_status_alone() {
    let before = written(&[], &[wanted("a")], at(3, THEN));
    let mut next = wanted("a");
    next.conditions[0].1.message = "otherwise said".into();
    next.conditions[1].1 = verdict(true, "ResolvedRefs");
    let after = written(&before, &[next], at(4, NOW));
    let [accepted, refs] = &after[0]["conditions"].as_array().unwrap()[..] else { panic!() };
    assert_eq!(
        (&accepted["lastTransitionTime"], &refs["lastTransitionTime"]),
        (&json!(THEN), &json!(NOW))
    );
    assert_eq!(accepted["message"], "otherwise said");
    assert_eq!(
        (&accepted["observedGeneration"], &refs["observedGeneration"]),
        (&json!(4), &json!(4))
    );
}

#[test]
fn a_new_generation_alone_is_written() {
    let before = written(&[], &[wanted("a")], at(3, THEN));
    let after = written(&before, &[wanted("a")], at(4, NOW));
    assert_eq!(after[0]["conditions"][0]["observedGeneration"], 4);
    assert_eq!(after[0]["conditions"][0]["lastTransitionTime"], THEN);
}

#[test]
fn the_observed_generation_never_goes_backwards() {
    let before = written(&[], &[wanted("a")], at(4, THEN));
    let mut stale = wanted("a");
    stale.conditions[0].1 = verdict(false, "NoMatchingParent");
    assert_eq!(parents(&before, &[stale], at(3, NOW)), None);
}

#[test]
fn entries_of_ours_that_are_stale_go_and_foreign_ones_stay_in_place() {
    let ours = written(&[], &[wanted("a"), wanted("b")], at(3, THEN));
    let current = [foreign("x"), ours[0].clone(), foreign("a"), ours[1].clone()];
    let after = written(&current, &[wanted("b"), wanted("c")], at(3, NOW));
    assert_eq!(after[..3], [foreign("x"), foreign("a"), ours[1].clone()]);
    assert_eq!(after[3]["parentRef"]["name"], "c");
    let emptied = written(&current, &[], at(3, NOW));
    assert_eq!(emptied, [foreign("x"), foreign("a")]);
    assert!(has_ours(&current) && !has_ours(&emptied));
}

#[test]
fn conditions_that_no_longer_apply_go() {
    let mut partial = wanted("a");
    partial.conditions.push(("PartiallyInvalid", verdict(true, "BackendNotFound")));
    let before = written(&[], &[partial], at(3, THEN));
    assert_eq!(before[0]["conditions"].as_array().unwrap().len(), 3);
    let after = written(&before, &[wanted("a")], at(3, NOW));
    assert_eq!(after[0]["conditions"].as_array().unwrap().len(), 2);
    let refused = ParentStatus::refused(parent_ref("a"), &verdict(false, "UnsupportedValue"));
    let after = written(&after, &[refused], at(4, NOW));
    let [accepted] = &after[0]["conditions"].as_array().unwrap()[..] else { panic!("{after:?}") };
    assert_eq!(accepted["reason"], "UnsupportedValue");
}

#[test]
fn parents_that_are_the_same_share_an_entry_and_twins_of_ours_are_repaired() {
    let list = written(&[], &[wanted("a"), wanted("a")], at(3, NOW));
    assert_eq!(list.len(), 1);
    let twins = [list[0].clone(), list[0].clone()];
    assert_eq!(written(&twins, &[wanted("a")], at(3, NOW)), list);
}

#[test]
fn the_list_never_outgrows_the_api() {
    let names: Vec<_> = (0..40).map(|n| format!("s{n}")).collect();
    let wanted: Vec<_> = names.iter().map(|name| wanted(name)).collect();
    let foreign: Vec<_> = (0..30).map(|n| foreign(&format!("f{n}"))).collect();
    let list = written(&foreign, &wanted, at(1, NOW));
    assert_eq!(list.len(), 32);
    assert_eq!(list[..30], foreign[..]);
    assert_eq!(parents(&list, &wanted, at(1, NOW)), None, "no write for ever");
}

#[test]
fn long_messages_are_cut_between_characters() {
    let mut long = wanted("a");
    long.conditions[0].1.message = "ß".repeat(40_000);
    let list = written(&[], &[long], at(1, NOW));
    let message = list[0]["conditions"][0]["message"].as_str().unwrap();
    assert_eq!(message.chars().count(), MAX_MESSAGE);
    assert!(message.ends_with('…'));
}

#[test]
fn entries_that_are_no_objects_are_others_and_broken_ones_of_ours_are_replaced() {
    let odd =
        [json!(null), json!("x"), json!({"controllerName": CONTROLLER, "conditions": "none"})];
    let after = written(&odd, &[wanted("a")], at(1, NOW));
    assert_eq!(after[..2], odd[..2]);
    assert_eq!(after.len(), 3);
    assert_eq!(after[2]["parentRef"], parent_ref("a"));
}

#[test]
fn issues_are_what_is_newly_wrong_and_reported_once() {
    let before = written(&[], &[wanted("a"), wanted("b")], at(1, THEN));
    let issues = new_issues(&[foreign("a")], &before);
    let [issue] = &Vec::from_iter(issues)[..] else { panic!("one for both parents") };
    assert_eq!(
        (issue.condition.as_str(), issue.reason.as_str()),
        ("ResolvedRefs", "BackendNotFound")
    );
    let again = written(&before, &[wanted("a"), wanted("b")], at(2, NOW));
    assert!(new_issues(&before, &again).is_empty(), "a new generation is no news");
    let mut worse = wanted("a");
    worse.conditions[0].1 = verdict(false, "NoMatchingParent");
    let after = written(&again, &[worse], at(2, NOW));
    assert_eq!(new_issues(&again, &after).len(), 1);
    assert!(new_issues(&after, &again).is_empty(), "getting well is no issue");
    let partial = |reason| {
        let mut status = wanted("a");
        status.conditions.push(("PartiallyInvalid", verdict(true, reason)));
        written(&again, &[status], at(2, NOW))
    };
    assert!(new_issues(&again, &partial("BackendNotFound")).is_empty(), "ResolvedRefs says it");
    assert_eq!(new_issues(&again, &partial("UnsupportedValue")).len(), 1);
}

proptest! {
    /// Whatever is there: others' entries survive in their order, a second pass writes nothing.
    #[test]
    fn foreign_entries_survive_and_a_second_pass_writes_nothing(
        current in prop::collection::vec((any::<bool>(), 0..6_u8, 0..5_i64), 0..12),
        names in prop::collection::vec(0..6_u8, 0..6),
        generation in 0..5_i64,
    ) {
        let current: Vec<_> = current.into_iter().map(|(ours, name, seen)| {
            let name = name.to_string();
            match ours {
                true => update(&Value::Null, &wanted(&name), at(seen, THEN)),
                false => foreign(&name),
            }
        }).collect();
        let wanted: Vec<_> = names.iter().map(|name| wanted(&name.to_string())).collect();
        let after = parents(&current, &wanted, at(generation, NOW)).unwrap_or_else(|| current.clone());
        let others = |list: &[Value]| -> Vec<Value> {
            list.iter().filter(|entry| !is_ours(entry)).cloned().collect()
        };
        prop_assert_eq!(others(&after), others(&current));
        prop_assert_eq!(parents(&after, &wanted, at(generation, "later")), None);
    }
}
