//! Orchestration's way through the state machine: what it means is [`crate::fleet`]'s; here its records are written.
//!
//! The fleet is kept beside the records for the batch, so that it is read once and copied once at most. It takes no revision:
//! revisions count changes of keys.

use super::apply::{Batch, Step, Stop, refuse};
use super::command::{Done, FleetCommand, FleetDone, Refusal};
use super::view::{Error, View};
use crate::fleet::apply::At;
use crate::fleet::records::Changed;
use crate::fleet::{self, Fleet};
use crate::types::Term;
use std::sync::Arc;

impl Batch<'_> {
    /// Does a command of orchestration.
    pub(super) fn fleet_command(
        &mut self,
        step: &Step,
        command: &FleetCommand,
    ) -> Result<Done, Stop> {
        let command = fleet::Command::from_json(&command.json).map_err(|error| {
            let message = format!("this command of orchestration cannot be read: {error}");
            refuse(Refusal::Invalid, message)
        })?;
        let at = At {
            index: step.index,
            term: Term(self.applied.term),
            time_ms: step.time_ms,
        };
        let mut fleet = self.take_fleet()?;
        // Copied here if somebody else holds it: once for a batch.
        let changing = Arc::make_mut(&mut fleet);
        let result = changing.apply(&command, at);
        let changes = changing.take_changes();
        self.fleet_changed |= !changes.is_empty();
        self.fleet = Some(fleet);
        for Changed { key, value, is_new } in changes {
            if let Some(value) = value.clone().filter(|_| is_new) {
                self.over.add(key, value);
                continue;
            }
            let old = self.over.get(&key)?;
            if old != value {
                self.over.replace(key, old.as_deref(), value);
            }
        }
        let done = result.map_err(|refused| refuse(refused.why, refused.message))?;
        let json = serde_json::to_vec(&done).expect("outcomes are plain data with text keys");
        Ok(Done::Fleet(FleetDone { json: json.into() }))
    }

    /// The fleet as of the last entry.
    fn take_fleet(&mut self) -> Result<Arc<Fleet>, Error> {
        match self.fleet.take() {
            Some(fleet) => Ok(fleet),
            None => Ok(Arc::new(Fleet::load(&self.over)?)),
        }
    }
}
