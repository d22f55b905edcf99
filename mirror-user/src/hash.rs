//! Hashing of keys that no peer chooses.

/// A map by keys that no peer chooses (an endpoint, or the address of an allocation of ours), looked up
/// for each request: a defence against chosen keys would be most of what a lookup costs.
pub(crate) type FastHashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
