//! Leases: keys that end together. When a lease is over is for the leader to find out; here it ends by an entry.
//!
//! An expiry names the renewals that the leader knew of. A renewal that was ordered before it makes it void, so a client
//! that got an answer to its renewal never loses the lease to an expiry that was already under way.

use super::apply::{Batch, Step, Stop, refuse};
use super::command::{
    Done, LeaseDone, LeaseExpire, LeaseGrant, LeaseKeepAlive, LeaseRevoke, Nothing, Refusal,
};
use super::keys;
use super::record::{Lease, decode, encode, fetch};
use super::view::{Error, View};
use crate::types::LeaseId;
use bytes::Bytes;

impl Batch<'_> {
    /// [`LeaseGrant`].
    pub(super) fn lease_grant(&mut self, step: &Step, grant: &LeaseGrant) -> Result<Done, Stop> {
        if grant.ttl_ms == 0 {
            return Err(refuse(Refusal::Invalid, "a lease needs a time to live"));
        }
        let lease = Lease {
            ttl_ms: grant.ttl_ms,
            granted_revision: self.meta.revision,
            renewals: 0,
        };
        let key = keys::lease(step.index);
        self.over.replace(key, None, Some(encode(&lease)));
        Ok(lease_done(step.index, grant.ttl_ms))
    }

    /// [`LeaseRevoke`].
    pub(super) fn lease_revoke(
        &mut self,
        step: &mut Step,
        revoke: &LeaseRevoke,
    ) -> Result<Done, Stop> {
        self.check_lease_exists(revoke.id)?;
        self.end_lease(step, revoke.id)?;
        Ok(Done::Nothing(Nothing {}))
    }

    /// [`LeaseKeepAlive`].
    pub(super) fn lease_keep_alive(&mut self, alive: &LeaseKeepAlive) -> Result<Done, Stop> {
        let key = keys::lease(alive.id);
        let raw = self.over.get(&key)?.ok_or_else(not_found)?;
        let mut lease: Lease = decode("lease", raw.clone())?;
        lease.renewals += 1;
        self.over.replace(key, Some(&raw), Some(encode(&lease)));
        Ok(lease_done(alive.id, lease.ttl_ms))
    }

    /// [`LeaseExpire`]: ends those leases that were not renewed since.
    pub(super) fn lease_expire(
        &mut self,
        step: &mut Step,
        expire: &LeaseExpire,
    ) -> Result<Done, Stop> {
        for expired in &expire.leases {
            let lease: Option<Lease> = fetch(&self.over, "lease", &keys::lease(expired.id))?;
            if lease.is_some_and(|lease| lease.renewals == expired.renewals) {
                self.end_lease(step, expired.id)?;
            }
        }
        Ok(Done::Nothing(Nothing {}))
    }

    /// Refuses an unknown lease; zero stands for none.
    pub(super) fn check_lease(&self, id: u64) -> Result<(), Stop> {
        match id {
            0 => Ok(()),
            id => self.check_lease_exists(id),
        }
    }

    /// Refuses an unknown lease.
    fn check_lease_exists(&self, id: u64) -> Result<(), Stop> {
        match self.over.get(&keys::lease(id))? {
            Some(_) => Ok(()),
            None => Err(not_found()),
        }
    }

    /// Removes a lease and its keys, in key order.
    fn end_lease(&mut self, step: &mut Step, id: u64) -> Result<(), Error> {
        for key in lease_keys(&self.over, LeaseId(id))? {
            self.remove(step, &key)?;
        }
        let key = keys::lease(id);
        if let Some(raw) = self.over.get(&key)? {
            self.over.replace(key, Some(&raw), None);
        }
        Ok(())
    }
}

/// The result of a grant or renewal.
fn lease_done(id: u64, ttl_ms: u64) -> Done {
    Done::Lease(LeaseDone { id, ttl_ms })
}

/// The refusal of an unknown lease.
fn not_found() -> Stop {
    refuse(Refusal::LeaseNotFound, "no such lease; it may have expired")
}

/// One lease.
pub fn lease(view: &dyn View, id: LeaseId) -> Result<Option<Lease>, Error> {
    fetch(view, "lease", &keys::lease(id.0))
}

/// All leases, by id.
pub fn leases(view: &dyn View) -> Result<Vec<(LeaseId, Lease)>, Error> {
    let (start, end) = keys::lease_range();
    let mut found = Vec::new();
    for record in view.scan(&start, &end) {
        let (key, raw) = record?;
        found.push((LeaseId(keys::id(&key)), decode("lease", raw)?));
    }
    Ok(found)
}

/// The keys of a lease, in key order.
pub fn lease_keys(view: &dyn View, id: LeaseId) -> Result<Vec<Bytes>, Error> {
    let (start, end) = keys::lease_key_range(id.0);
    let links = view.scan(&start, &end);
    links
        .map(|link| Ok(keys::lease_key_user_key(&link?.0)))
        .collect()
}
