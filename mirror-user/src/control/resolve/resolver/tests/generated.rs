//! Routes that the schemas of the CRDs let through, with Services, EndpointSlices, Namespaces and grants around them:
//! none makes decoding or resolving panic, and what they mean does not depend on the order in which they arrive.

use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
use serde_json::Value;

use super::*;
use crate::{
    control::{
        decode::{self, Defaults, GRPC_ROUTE_TEXT, HTTP_ROUTE_TEXT},
        expressions::Allowance,
        generate::Generator,
    },
    model::RouteKind,
};

/// Routes of one set, and sets: 10,000 routes.
const ROUTES: u64 = 5;
const SETS: u64 = 2_000;

/// Other objects of a set.
const OTHERS: usize = 24;

/// What became of the routes.
#[derive(Debug, Default)]
struct Tally {
    undecodable: u32,
    partly_refused: u32,
    /// Conditions of routes at their parents, and those that are Accepted.
    parents: usize,
    accepted: u32,
    /// Decoded, and with frontends.
    in_force: usize,
}

#[test]
fn what_the_schema_lets_through_resolves_alike_in_any_order() {
    let [http, grpc] =
        [HTTP_ROUTE_TEXT, GRPC_ROUTE_TEXT].map(|text| serde_json::from_str::<Value>(text).unwrap());
    let mut generator = Generator::new(1);
    let mut runner = TestRunner::deterministic();
    let others = prop::collection::vec(
        prop_oneof![8 => service(), 3 => slice(), 2 => namespace(), 2 => grant(), 1 => pod(), 1 => node()],
        OTHERS,
    );
    let mut tally = Tally::default();
    for set in 0..SETS {
        let mut objects = BTreeMap::new();
        for object in others.new_tree(&mut runner).unwrap().current() {
            objects.insert(object.identity(), object);
        }
        for number in 0..ROUTES {
            let name = format!("r{number}");
            let document = match generator.below(5) {
                0 => generator.route(RouteKind::Grpc, &grpc, &name),
                _ => generator.route(RouteKind::Http, &http, &name),
            };
            if let Some(object) = decoded(document, &mut tally) {
                objects.insert(object.identity(), object);
            }
        }
        let mut order: Vec<_> = objects.into_values().collect();
        let policy = match set % 2 {
            0 => AddressPolicy::default(),
            _ => AddressPolicy::of_cluster(),
        };
        let whole = at_once(&policy, order.clone());
        tally.in_force += whole.frontends.len();
        tally.parents += whole.conditions.len();
        tally.accepted +=
            whole.conditions.iter().map(|status| u32::from(status.accepted.holds)).sum::<u32>();
        let whole = summary(&whole);
        shuffle(&mut generator, &mut order);
        let names: Vec<_> = order.iter().map(Object::identity).collect();
        let stepwise = summary(&one_by_one(&policy, order));
        if let Some((one, other)) = difference(&stepwise, &whole) {
            panic!("set {set} in the order {names:?}:\n{one}\n\nand all at once:\n{other}");
        }
    }
    println!("{tally:?}");
    let routes = u32::try_from(ROUTES * SETS).unwrap();
    assert!(tally.undecodable < routes / 2 && tally.partly_refused > routes / 20, "{tally:?}");
    assert!(tally.accepted > routes / 10 && tally.in_force > 1_000, "{tally:?}");
}

/// What is around the first byte in which two texts differ.
fn difference(one: &str, other: &str) -> Option<(String, String)> {
    let mut pairs = one.bytes().zip(other.bytes());
    let at = match pairs.position(|(a, b)| a != b) {
        Some(at) => at,
        None if one.len() == other.len() => return None,
        None => one.len().min(other.len()),
    };
    let around = |text: &str| {
        let bytes = &text.as_bytes()[at.saturating_sub(300)..text.len().min(at + 300)];
        String::from_utf8_lossy(bytes).into_owned()
    };
    Some((around(one), around(other)))
}

/// The route as it comes from a cluster, if it decodes. (From a file it must not panic either.)
fn decoded(document: Value, tally: &mut Tally) -> Option<Object> {
    drop(decode::decode(document.clone()));
    let decoded = decode::decode_within(document, &Defaults::default(), &mut Allowance::default());
    match &decoded {
        Err(_) => tally.undecodable += 1,
        Ok(Object::Route(route)) if route.refused_rules().next().is_some() => {
            tally.partly_refused += 1;
        }
        Ok(_) => {}
    }
    decoded.ok()
}

fn shuffle(generator: &mut Generator, objects: &mut [Object]) {
    for at in (1..objects.len()).rev() {
        let other = generator.below(at as u64 + 1);
        objects.swap(at, usize::try_from(other).unwrap());
    }
}

fn at_once(policy: &AddressPolicy, order: Vec<Object>) -> Resolved {
    let mut objects = Objects::default();
    for object in order {
        objects.insert(object);
    }
    resolve(policy, &objects)
}

fn one_by_one(policy: &AddressPolicy, order: Vec<Object>) -> Resolved {
    let (mut objects, mut resolver) = (Objects::default(), Resolver::new(policy.clone()));
    let mut frontends: BTreeMap<SocketAddr, ResolvedFrontend> = BTreeMap::new();
    for object in order {
        let mut changes = Changes::default();
        objects.apply(object, &mut changes);
        for (address, change) in resolver.update(&objects, &changes) {
            match change {
                Some(frontend) => drop(frontends.insert(address, frontend)),
                None => drop(frontends.remove(&address)),
            }
        }
    }
    Resolved {
        frontends: frontends.into_values().collect(),
        conditions: resolver.conditions(&objects),
        warnings: resolver.warnings(&objects),
    }
}
