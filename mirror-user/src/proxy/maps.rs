//! Maps that are looked into for each request, by keys that no peer chooses: a defence against
//! chosen keys would be most of what a look costs.

use std::collections::HashMap;

/// A map by endpoint, or by the address of an allocation of ours.
pub(super) type QuickMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
