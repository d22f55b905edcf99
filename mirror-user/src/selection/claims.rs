//! Whose cgroup is whose. In: all Pods of the node, and the evidence of kubelet's log folders. Out:
//! for each Pod the uid or hash that its cgroup is named after, or a doubt. It knows no order of
//! Pods: what it says depends on which there are, not on which came first.
//!
//! - A uid's claim stands: the API server gives each Pod one, and never twice.
//! - A hash's claim needs evidence that only the node's root can make, and ranks after any
//!   claim by uid. Equal ones with evidence refuse each other.

use std::collections::BTreeMap;

use super::{NoEvidence, PodLogs};
use crate::model::{CgroupClaim, ObjectName, PodRow};

/// Why a Pod is not believed to be the one that its cgroup belongs to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It calls itself the mirror of a static pod, in a shape that kubelet does not make.
    #[error("it claims to be the mirror of a static pod, but {0}")]
    Shape(&'static str),
    /// Its hash is the uid of another.
    #[error("it claims to be the mirror of a static pod, but its hash is the uid of Pod {other}")]
    OthersUid {
        /// Whose.
        other: ObjectName,
    },
    /// Nothing shows that it is static.
    #[error(transparent)]
    NoEvidence(#[from] NoEvidence),
    /// Another has the same, with evidence as good.
    #[error("Pod {other} has the same {what}, and nothing shows which of them owns the cgroup")]
    Contested {
        /// Uid or hash.
        what: &'static str,
        /// The first of the others by name.
        other: ObjectName,
    },
}

/// The claims of all Pods.
pub(super) struct CgroupClaims<'a> {
    uids: Owners<'a>,
    /// Of hashes, those that kubelet has a log folder of.
    hashes: Owners<'a>,
    logs: &'a PodLogs,
}

type Owners<'a> = BTreeMap<&'a str, Vec<&'a ObjectName>>;

impl<'a> CgroupClaims<'a> {
    pub(super) fn new(rows: impl Iterator<Item = &'a PodRow>, logs: &'a PodLogs) -> Self {
        let (mut uids, mut hashes) = (Owners::new(), Owners::new());
        for row in rows {
            uids.entry(&row.uid).or_default().push(&row.name);
            if let CgroupClaim::Hash(hash) = &row.claim
                && logs.shows(&row.name, hash).is_ok()
            {
                hashes.entry(hash).or_default().push(&row.name);
            }
        }
        Self { uids, hashes, logs }
    }

    /// Whether the Pod's cgroup is its own beyond doubt. The Pod is one of those.
    ///
    /// # Errors
    /// The doubt.
    pub(super) fn check(&self, row: &PodRow) -> Result<(), Doubt> {
        match &row.claim {
            CgroupClaim::Misshapen(why) => Err(Doubt::Shape(why)),
            CgroupClaim::Uid => alone(&self.uids, &row.uid, row, "uid"),
            CgroupClaim::Hash(hash) => {
                if let Some(other) = self.uids.get(&**hash).and_then(|owners| owners.first()) {
                    return Err(Doubt::OthersUid { other: (*other).clone() });
                }
                self.logs.shows(&row.name, hash)?;
                alone(&self.hashes, hash, row, "hash")
            }
        }
    }
}

fn alone(owners: &Owners<'_>, key: &str, row: &PodRow, what: &'static str) -> Result<(), Doubt> {
    let owners = owners.get(key).into_iter().flatten();
    match owners.filter(|owner| ***owner != row.name).min() {
        Some(other) => Err(Doubt::Contested { what, other: (*other).clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::model::CaptureLabel;

    const UID: &str = "0a95e3f0-55a6-4c0c-8f06-8a4ee1b1d1c5";
    const HASH: &str = "2f8dd6d7ab6a2b2f24f6c9a9d3f6b3d1";

    fn row(namespace: &str, name: &str, uid: &str, claim: CgroupClaim) -> PodRow {
        PodRow {
            name: ObjectName { namespace: namespace.into(), name: name.into() },
            uid: uid.into(),
            claim,
            label: CaptureLabel::None,
            host_network: false,
            mesh: None,
            runtime_class: None,
            ended: false,
            ips: Vec::new(),
        }
    }

    fn by_hash(namespace: &str, uid: &str, hash: &str) -> PodRow {
        row(namespace, "fake-n1", uid, CgroupClaim::Hash(hash.into()))
    }

    /// What is said of each row, which must not depend on their order.
    fn doubts(rows: &[PodRow], folder: &Path) -> Vec<Result<(), Doubt>> {
        let logs = PodLogs::new(folder.to_owned());
        let claims = CgroupClaims::new(rows.iter(), &logs);
        let doubts: Vec<_> = rows.iter().map(|row| claims.check(row)).collect();
        let reversed = CgroupClaims::new(rows.iter().rev(), &logs);
        let again: Vec<_> = rows.iter().map(|row| reversed.check(row)).collect();
        assert_eq!(doubts, again);
        doubts
    }

    fn evidence(folder: &Path, row: &PodRow, hash: &str) {
        let ObjectName { namespace, name } = &row.name;
        fs::create_dir(folder.join(format!("{namespace}_{name}_{hash}"))).unwrap();
    }

    #[test]
    fn a_uid_beats_a_hash_whatever_their_order_and_whatever_becomes_of_its_pod() {
        let folder = tempfile::tempdir().unwrap();
        // Sorts before the victim, and after it.
        for uid in ["00000000-0000-4000-8000-000000000000", "ffffffff-ffff-4fff-8fff-ffffffffffff"]
        {
            let fake = by_hash("attacker", uid, UID);
            for label in [CaptureLabel::None, CaptureLabel::Disabled] {
                let victim = PodRow { label, ..row("shop", "cart", UID, CgroupClaim::Uid) };
                let rows = [victim.clone(), fake.clone()];
                let refused = Doubt::OthersUid { other: victim.name };
                assert_eq!(doubts(&rows, folder.path()), [Ok(()), Err(refused)]);
            }
            // The victim is not known yet.
            let [Err(Doubt::NoEvidence(_))] = &doubts(&[fake], folder.path())[..] else { panic!() };
        }
        // Not even with a folder.
        let fake = by_hash("attacker", "0", UID);
        evidence(folder.path(), &fake, UID);
        let victim = row("shop", "cart", UID, CgroupClaim::Uid);
        assert!(matches!(
            &doubts(&[fake, victim], folder.path())[..],
            [Err(Doubt::OthersUid { .. }), Ok(())]
        ));
    }

    #[test]
    fn a_hash_without_evidence_keeps_none_with_it_from_its_cgroup() {
        let folder = tempfile::tempdir().unwrap();
        let (own, fake) = (by_hash("kube-system", "1", HASH), by_hash("attacker", "0", HASH));
        evidence(folder.path(), &own, HASH);
        let rows = [fake.clone(), own.clone()];
        let [Err(Doubt::NoEvidence(_)), Ok(())] = &doubts(&rows, folder.path())[..] else {
            panic!()
        };
        evidence(folder.path(), &fake, HASH);
        let contested =
            |row: &PodRow| Err(Doubt::Contested { what: "hash", other: row.name.clone() });
        assert_eq!(doubts(&rows, folder.path()), [contested(&own), contested(&fake)]);
    }

    #[test]
    fn documents_of_one_uid_refuse_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let rows = [row("a", "x", UID, CgroupClaim::Uid), row("b", "y", UID, CgroupClaim::Uid)];
        let contested =
            |row: &PodRow| Err(Doubt::Contested { what: "uid", other: row.name.clone() });
        assert_eq!(doubts(&rows, folder.path()), [contested(&rows[1]), contested(&rows[0])]);
    }
}
