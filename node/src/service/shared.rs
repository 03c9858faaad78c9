//! For serde: what is shared in memory is written and read like what is not.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

pub(crate) fn serialize<T: Serialize, S: Serializer>(
    of: &Arc<T>,
    to: S,
) -> Result<S::Ok, S::Error> {
    T::serialize(of, to)
}

pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<Arc<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(from).map(Arc::new)
}
